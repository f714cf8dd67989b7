// Shows what a training's events tell, from its beginning on: its loss, its scores, and pictures of what it has learned.
"use strict";

const place = document.querySelector("[data-curve]");
const told = document.querySelector("[data-curve-told]");
const steps = [];
const losses = [];
const scores = [];
let chart;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options() {
  const line = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--quiet"), grid: line, ticks: line };
  const right = { ...axis, scale: "score", side: 1, grid: { show: false } };
  const has = scores.some((score) => score !== null);
  return {
    width: place.clientWidth,
    height: 260,
    cursor: { y: false },
    scales: { x: { time: false }, score: { range: [0, 1] } },
    axes: [{ ...axis, label: "step" }, axis, ...(has ? [right] : [])],
    series: [
      { label: "step" },
      { label: "loss", stroke: colour("--accent"), width: 2 },
      ...(has ? [{ label: "score", scale: "score", stroke: colour("--good"), width: 2, spanGaps: true }] : []),
    ],
  };
}

function draw() {
  chart?.destroy();
  if (steps.length === 0) return;
  const wanted = options();
  chart = new uPlot(wanted, wanted.series.length > 2 ? [steps, losses, scores] : [steps, losses], place);
  told.textContent = `Loss ${losses.at(-1).toFixed(3)} after ${steps.at(-1)} steps.`;
}

let drawing;

function note(event) {
  const progress = JSON.parse(event.data).data.progress;
  if (typeof progress?.loss !== "number") return;
  // An attempt that went on from a checkpoint comes by the same steps again.
  while (steps.length && steps.at(-1) >= progress.step) [steps, losses, scores].forEach((column) => column.pop());
  steps.push(progress.step);
  losses.push(progress.loss);
  scores.push(progress.harmonic_mean ?? null);
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(draw);
}

const sheet = document.querySelector("[data-sheet]");
const slider = document.querySelector("[data-sheet-place]");
const previews = [];

function look() {
  const { step, file_id } = previews[slider.value];
  const words = `after ${step} steps`;
  sheet.querySelector("img").src = `/v1/files/${file_id}/content`;
  sheet.querySelector("img").alt = `Pictures ${words}`;
  sheet.querySelector("output").textContent = words;
  slider.setAttribute("aria-valuetext", words);
}

let looking;

function show(event) {
  const preview = JSON.parse(event.data).data.preview;
  const isLatest = slider.value === slider.max;
  while (previews.length && previews.at(-1).step >= preview.step) previews.pop();
  previews.push(preview);
  slider.max = previews.length - 1;
  if (isLatest) slider.value = slider.max;
  sheet.hidden = false;
  cancelAnimationFrame(looking);
  looking = requestAnimationFrame(look);
}

slider.addEventListener("input", look);
const source = new EventSource(place.dataset.curve);
source.addEventListener("training.progress", note);
source.addEventListener("training.preview", show);
for (const end of ["succeeded", "failed", "canceled", "expired"]) {
  source.addEventListener(`training.${end}`, () => source.close());
}
document.addEventListener("theme", draw);
addEventListener("resize", () => chart?.setSize({ width: place.clientWidth, height: 260 }));
