"use strict";
// Two pictures one above the other, the upper cut off where the slider stands; or both side by side.

function bindWipe(compare) {
  const wipe = compare.querySelector(".wipe");
  if (!wipe) return;
  const cut = () => compare.style.setProperty("--wipe", wipe.value + "%");
  wipe.addEventListener("input", cut);
  cut();
}

function bindComparisons(root) {
  root.querySelectorAll(".compare").forEach(bindWipe);
  root.querySelectorAll("input[name=mode]").forEach((choice) => choice.addEventListener("change", () => {
    root.classList.toggle("side", choice.value === "side" && choice.checked);
  }));
}
