// What every page shares: the theme's switch, asking before an act, and telling how it went.
"use strict";

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-switch-theme]")) return;
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  document.dispatchEvent(new CustomEvent("theme", { detail: theme }));
});

// Copies the text of the element that `data-copy` selects.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
  tell("Copied.");
});

// A form with `data-confirm` asks in a dialog of the page first; so does whatever htmx sends with `hx-confirm`.
const dialog = () => document.querySelector("dialog[data-confirmation]");

function confirmed(question) {
  const asked = dialog();
  asked.querySelector("[data-question]").textContent = question;
  asked.returnValue = "";
  asked.showModal();
  return new Promise((resolve) => {
    asked.addEventListener("close", () => resolve(asked.returnValue === "yes"), { once: true });
  });
}

document.addEventListener("htmx:confirm", (event) => {
  if (!event.detail.question) return;
  event.preventDefault();
  confirmed(event.detail.question).then((yes) => {
    if (yes) event.detail.issueRequest(true);
  });
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.asked) return;
  event.preventDefault();
  confirmed(form.dataset.confirm).then((yes) => {
    if (!yes) return;
    form.dataset.asked = "yes";
    form.requestSubmit();
  });
});

function tell(text) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.textContent = text;
  document.querySelector(".toasts").append(toast);
  setTimeout(() => toast.remove(), 6000);
}
window.tell = tell;

// The server may answer an act with `HX-Trigger: {"tell": "..."}`; an error it answers as a problem document.
document.addEventListener("tell", (event) => tell(event.detail.value));
document.addEventListener("htmx:responseError", (event) => {
  if (event.defaultPrevented) return; // told beside a field
  let told = "That did not work.";
  try {
    told = JSON.parse(event.detail.xhr.responseText).detail || told;
  } catch {
    // not a problem document: nothing more is known
  }
  tell(told);
});
document.addEventListener("htmx:sendError", () => tell("The server cannot be reached."));
