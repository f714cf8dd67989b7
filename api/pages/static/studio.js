// What the studio's forms do by themselves: put concepts into the prompt, take pictures in, say beside a field what is
// wrong with it, and keep what was said in the address, so that a reload loses nothing.
"use strict";

// --- concepts and dials ---

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-insert]");
  if (!button) return;
  const prompt = button.form.elements.prompt;
  const [start, end] = [prompt.selectionStart, prompt.selectionEnd];
  const before = prompt.value.slice(0, start);
  const space = before && !/\s$/.test(before) ? " " : "";
  prompt.setRangeText(space + button.dataset.insert, start, end, "end");
  prompt.focus();
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
});

document.addEventListener("input", (event) => {
  const told = event.target.type === "range" && event.target.parentElement.querySelector("output");
  if (told) told.textContent = Number(event.target.value).toFixed(2);
});

document.addEventListener("click", (event) => {
  const seed = event.target.closest("[data-new-seed]");
  if (seed) {
    const field = document.querySelector(seed.dataset.newSeed);
    field.value = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const redraw = event.target.closest("[data-redraw]");
  if (redraw) htmx.trigger(redraw.dataset.redraw, "redraw");
});

// --- what was said stays in the address ---

let keeping;

function keep(form) {
  const said = [...new FormData(form)].filter(([, value]) => typeof value === "string" && value !== "");
  const address = `${form.dataset.address}?${new URLSearchParams(said)}`;
  if (address !== location.pathname + location.search) history.replaceState(null, "", address);
}

document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.dataset.address) return;
  clearTimeout(keeping);
  keeping = setTimeout(keep, 200, form);
});
document.addEventListener("htmx:afterSettle", () => document.querySelectorAll("form[data-address]").forEach(keep));

// --- what is wrong, beside the field ---

function forget(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
  for (const made of form.querySelectorAll("[data-made]")) made.remove();
  for (const note of form.querySelectorAll("[data-problem], [data-problem-of]")) note.hidden = true;
}

function complain(form, problem, asked) {
  const name = (problem.error?.param || "").split(".")[0];
  const place = name && form.querySelector(`[data-problem-of="${CSS.escape(name)}"]`);
  const field = name && form.querySelector(`[name="${CSS.escape(name)}"]:not([type="hidden"])`);
  const note = place || form.querySelector("[data-problem]");
  const told = problem.detail || problem.title;
  if (place || !field) {
    note.textContent = told;
    note.hidden = false;
    note.scrollIntoView({ block: "nearest" });
    return;
  }
  const beside = Object.assign(document.createElement("p"), { id: `problem-${name}`, className: "problem", textContent: told });
  beside.dataset.made = "yes";
  beside.setAttribute("role", "alert");
  field.closest("details")?.setAttribute("open", "");
  field.closest(".field").append(beside);
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", beside.id);
  if (asked === form) field.focus(); // a dial that is being turned keeps it
}

function signInAgain() {
  location.assign(`/sign-in?to=${encodeURIComponent(location.pathname + location.search)}`);
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const form = event.target.closest("form[data-address]");
  if (form && event.detail.requestConfig.verb === "post") forget(form);
});

// Before the page's other listener, which tells what concerns no field.
document.addEventListener(
  "htmx:responseError",
  (event) => {
    const answer = event.detail.xhr;
    if (answer.status === 401) {
      event.preventDefault();
      signInAgain();
      return;
    }
    const form = event.target.closest("form[data-address]");
    if (!form || !answer.getResponseHeader("content-type")?.startsWith("application/problem+json")) return;
    event.preventDefault();
    complain(form, JSON.parse(answer.responseText), event.target);
  },
  true,
);

// --- pictures to learn from ---

async function upload(files, list) {
  const form = list.closest("form");
  forget(form);
  for (const file of files) {
    const body = new FormData();
    body.append("file", file);
    const answer = await fetch("/v1/files", { method: "POST", body }).catch(() => null);
    if (answer?.status === 401) signInAgain();
    else if (answer?.ok) add(list, await answer.json());
    else complain(form, { error: { param: "images" }, detail: `${file.name}: ${await why(answer)}` });
  }
  keep(form);
}

async function why(answer) {
  if (!answer) return "the server cannot be reached.";
  const problem = await answer.json().catch(() => ({}));
  return problem.detail || "that did not work.";
}

function add(list, file) {
  const made = document.querySelector("#picture-template").content.cloneNode(true);
  made.querySelector("img").src = `/v1/files/${file.id}/content`;
  made.querySelector("img").alt = file.name;
  made.querySelector("input").value = file.id;
  made.querySelector("span").textContent = file.name;
  made.querySelector("button").setAttribute("aria-label", `Leave ${file.name} out`);
  list.append(made);
}

document.addEventListener("change", (event) => {
  const chosen = event.target.dataset?.upload;
  if (!chosen) return;
  upload([...event.target.files], document.querySelector(chosen));
  event.target.value = "";
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-remove]");
  if (!button) return;
  const form = button.closest("form");
  button.closest("li").remove();
  keep(form);
  form.querySelector("[data-upload]").focus();
});

for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    const zone = event.target.closest?.("[data-drop]");
    if (!zone) return;
    event.preventDefault();
    zone.classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type === "drop") upload([...event.dataTransfer.files], document.querySelector(zone.dataset.drop));
  });
}
