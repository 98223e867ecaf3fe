"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const clip = $("clip"), count = data.times.length;
  let frame = 0, wanted = null, playing = false;

  // ---- pictures: both are cut out of one video, so they are always of one frame

  const sides = [["source", data.source_top], ["decoded", data.decoded_top]].filter(([, top]) => top !== null).map(([id, top]) => {
    const canvas = $(id);
    canvas.width = data.width;
    canvas.height = data.height;
    return { canvas, top, context: canvas.getContext("2d", { alpha: false }) };
  });
  const share = sides.length === 2 ? 2 : 1;
  // No taller than what a window has room for.
  const fit = () => {
    const across = document.querySelector(".side") && window.innerWidth > 640 ? share : 1;
    $("stage").style.setProperty("--fit", Math.max(260, Math.round((window.innerHeight - 330) * data.width / data.height * across)) + "px");
  };

  function paint(at) {
    for (const { canvas, top, context } of sides) {
      context.drawImage(clip, 0, top, data.width, data.height, 0, 0, data.width, data.height);
      canvas.dataset.frame = data.frames[at];
    }
    show(at);
  }

  function frameAt(seconds) {
    let low = 0, high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.times[middle] <= seconds + 1e-4) low = middle; else high = middle - 1;
    }
    return low;
  }

  // The browser says which picture it has on screen; where it cannot, its clock does.
  const presented = "requestVideoFrameCallback" in clip;
  function watch() {
    if (presented) clip.requestVideoFrameCallback((_, about) => { paint(frameAt(about.mediaTime)); watch(); });
    else requestAnimationFrame(() => { if (!clip.paused) paint(frameAt(clip.currentTime)); watch(); });
  }

  function middle(at) {
    const end = at + 1 < count ? data.times[at + 1] : data.end;
    return data.times[at] + (end - data.times[at]) / 2;
  }

  function seek(at) {
    const to = Math.max(0, Math.min(count - 1, at));
    show(to);
    if (clip.seeking) { wanted = to; return; }
    clip.currentTime = middle(to);
  }

  clip.addEventListener("seeked", () => {
    if (wanted !== null) { const to = wanted; wanted = null; clip.currentTime = middle(to); return; }
    paint(frameAt(clip.currentTime));
  });
  clip.addEventListener("loadeddata", () => { paint(0); document.documentElement.dataset.ready = "yes"; }, { once: true });
  clip.addEventListener("error", () => { $("where").textContent = "The browser cannot play the clip: " + (clip.error?.message || "H.264 is needed"); });

  // ---- controls

  function play(on) {
    if (on && frame === count - 1) seek(0);
    if (on) clip.play(); else clip.pause();
  }
  const paused = () => { playing = !clip.paused && !clip.ended; $("play").textContent = playing ? "Pause" : "Play"; };
  for (const kind of ["play", "pause", "ended"]) clip.addEventListener(kind, paused);
  const step = (by) => { play(false); seek(frame + by); };
  const second = () => Math.max(1, frameAt(data.times[frame] + 1) - frame);
  $("play").addEventListener("click", () => play(!playing));
  $("back").addEventListener("click", () => step(-1));
  $("forth").addEventListener("click", () => step(1));
  $("first").addEventListener("click", () => step(-count));
  $("speed").addEventListener("change", () => { clip.playbackRate = +$("speed").value; });
  $("loop").addEventListener("change", () => { clip.loop = $("loop").checked; });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=range], input[type=radio]")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -count, End: count }[event.key];
    if (by) step(event.shiftKey && Math.abs(by) === 1 ? (by > 0 ? second() : -Math.max(1, frame - frameAt(data.times[frame] - 1))) : by);
    else if (event.key === " " && !event.target.matches("button, input")) play(!playing);
    else return;
    event.preventDefault();
  });

  // ---- figures

  const metric = () => data.metrics[+$("metric").value] || null;
  let marks = null;

  function show(at) {
    frame = at;
    $("where").textContent = `Frame ${data.frames[at]} · ${clock(data.begin + data.times[at])} · GOP ${data.gops[at]} · ${data.coded[at]}`;
    $("score").textContent = data.metrics.map((one) => `${one.label} ${figure(one.values[at], one.name + "_mean")}`).join("  ·  ");
    $("strip").setAttribute("aria-valuenow", data.frames[at]);
    const one = metric();
    $("strip").setAttribute("aria-valuetext", `Frame ${data.frames[at]}` + (one ? `, ${one.label} ${figure(one.values[at], one.name + "_mean")}` : ""));
    if (marks) marks(at);
  }

  function draw(place, width) {
    const one = metric(), height = one ? 170 : 70, box = { left: 56, right: width - 10, top: 24, bottom: height - 24 };
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    const x = scale([0, data.end], [box.left, box.right]);
    const range = one ? extent(one.values) : [0, 1], y = scale(range, [box.bottom, box.top]);
    const ticks = clockTicks(data.begin, data.begin + data.end, Math.max(3, width / 90));
    data.gops.forEach((gop, at) => { if (at && gop !== data.gops[at - 1]) picture.append(svg("path", { class: "gop", d: `M${x(data.times[at])} ${box.top}V${box.bottom}` })); });
    drawAxes(picture, box, (value) => x(value - data.begin), y, ticks, one ? linearTicks(...range, 4) : [], "", one ? one.label + (one.unit ? `, ${one.unit}` : "") + (one.higher ? " (higher is better)" : " (lower is better)") : "");
    if (one) {
      let path = "", drawn = false;
      one.values.forEach((value, at) => {
        if (value === null) { drawn = false; return; }
        path += `${drawn ? "L" : "M"}${x(data.times[at]).toFixed(1)} ${y(value).toFixed(1)}H${x(at + 1 < count ? data.times[at + 1] : data.end).toFixed(1)}`;
        drawn = true;
      });
      picture.append(svg("path", { class: "mean", d: path }));
    }
    const now = svg("path", { class: "now" }), dot = svg("circle", { class: "dot", r: 4 });
    picture.append(now, dot);
    marks = (at) => {
      const left = x(middle(at)), value = one ? one.values[at] : null;
      now.setAttribute("d", `M${left} ${box.top}V${box.bottom}`);
      dot.setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value !== null) { dot.setAttribute("cx", left); dot.setAttribute("cy", y(value)); }
    };
    place.replaceChildren(picture);
    place.seconds = (event) => {
      const at = picture.getBoundingClientRect(), part = ((event.clientX - at.x) * width / at.width - box.left) / (box.right - box.left);
      return Math.max(0, Math.min(1, part)) * data.end;
    };
    marks(frame);
  }

  const strip = $("strip"), redraw = responsive(strip, draw);
  strip.addEventListener("pointerdown", (event) => { play(false); strip.setPointerCapture(event.pointerId); seek(frameAt(strip.seconds(event))); });
  strip.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(frameAt(strip.seconds(event))); });
  $("metric").addEventListener("change", () => { redraw(); show(frame); });
  $("metric").disabled = $("worst").disabled = !data.metrics.length;
  $("worst").addEventListener("click", () => {
    const one = metric(), sign = one.higher ? 1 : -1;
    let worst = -1;
    one.values.forEach((value, at) => { if (value !== null && (worst < 0 || sign * value < sign * one.values[worst])) worst = at; });
    if (worst >= 0) { play(false); seek(worst); }
  });

  document.querySelectorAll("input[name=mode]").forEach((choice) => choice.addEventListener("change", () => setTimeout(fit)));
  window.addEventListener("resize", fit);
  bindComparisons($("stage"));
  fit();
  redraw();
  show(0);
  watch();
})();
