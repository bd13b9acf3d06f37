"use strict";
const slides = Array.from(document.querySelectorAll("section"));
const forward = ["ArrowRight", "ArrowDown", "PageDown", " ", "Enter"], back = ["ArrowLeft", "ArrowUp", "PageUp"];
let now = 0;

// The largest type in which a slide's text fits, in steps, and none below half.
function fit(slide) {
  const body = slide.querySelector("div");
  for (let size = 130; size >= 50; size -= 5) {
    body.style.fontSize = `${size}%`;
    if (body.scrollHeight <= body.clientHeight + 1 && body.scrollWidth <= body.clientWidth + 1) return;
  }
}

function show(number) {
  now = Math.max(0, Math.min(slides.length - 1, number));
  slides.forEach((slide, place) => slide.classList.toggle("now", place === now));
  fit(slides[now]);
  history.replaceState(null, "", `#${now + 1}`);
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const step = forward.includes(event.key) ? 1 : back.includes(event.key) ? -1 : 0;
  const place = { Home: 0, End: slides.length - 1 }[event.key] ?? now + step;
  if (place === now && !step) return;
  event.preventDefault();
  show(place);
});
document.addEventListener("click", (event) => { if (!getSelection().toString()) show(now + (event.clientX < innerWidth / 4 ? -1 : 1)); });
addEventListener("resize", () => fit(slides[now]));
addEventListener("hashchange", () => show(parseInt(location.hash.slice(1), 10) - 1 || 0));
slides.forEach(fit);
document.body.classList.add("running");
show(parseInt(location.hash.slice(1), 10) - 1 || 0);
