// Draws what a training's events tell of its loss and its scores, from its beginning on.
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

const source = new EventSource(place.dataset.curve);
source.addEventListener("training.progress", note);
for (const end of ["succeeded", "failed", "canceled", "expired"]) {
  source.addEventListener(`training.${end}`, () => source.close());
}
document.addEventListener("theme", draw);
addEventListener("resize", () => chart?.setSize({ width: place.clientWidth, height: 260 }));
