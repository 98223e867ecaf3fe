"use strict";
// Rate against quality, a point for each video or GOP. Returns what draws it anew.

function makeScatter(page) {
  const { data, metrics, names, videos, get, matches, choose, fillMetrics, $ } = page;
  const place = $("rd");
  let active = -1, pointed = false, points = [], picture = null;

  function told(point) {
    const metric = names.get($("rd-metric").value);
    const lines = [point.name, `${figure(point.x, "bpp")} bpp`, `${metric.label} ${figure(point.y, metric.name + "_mean")}${metric.unit ? " " + metric.unit : ""}`];
    if (point.q !== null) lines.push("q " + point.q);
    return lines.join("\n");
  }

  function activate(at, focus) {
    if (active >= 0 && points[active]) points[active].dot.classList.remove("active");
    active = at;
    if (at < 0) { tip.hide(); return; }
    const { dot } = points[at];
    dot.classList.add("active");
    const box = dot.getBoundingClientRect();
    tip.show(told(points[at]), box.x + box.width / 2, box.y + box.height / 2);
    if (focus) picture.setAttribute("aria-label", told(points[at]).replaceAll("\n", ", "));
  }

  function found(metric) {
    if ($("rd-points").value === "gops") {
      const at = 4 + metrics.findIndex((one) => one.name === metric);
      return data.gops.map((row) => ({
        place: row[0], name: `${get(videos[row[0]], "source_name")}, GOP ${row[1]}`, x: row[2], y: row[at], q: row[3], status: get(videos[row[0]], "status"),
      }));
    }
    return videos.map((video) => ({
      place: video.place, name: get(video, "source_name"), x: get(video, "bpp"), y: get(video, metric + "_mean"), q: get(video, "q_min") === get(video, "q_max") ? get(video, "q_min") : null,
      status: get(video, "status"),
    }));
  }

  function draw(_, width) {
    const metric = names.get($("rd-metric").value);
    place.replaceChildren();
    points = [];
    active = -1;
    tip.hide();
    if (!metric) { place.append(element("p", { class: "empty" }, "Nothing was measured: there is no quality to draw.")); $("rd-note").textContent = ""; return; }
    const log = $("rd-scale").value === "log";
    const all = found(metric.name).filter((one) => one.x !== null && one.y !== null && (!log || one.x > 0));
    if (!all.length) { place.append(element("p", { class: "empty" }, "No video has both a rate and this metric.")); $("rd-note").textContent = ""; return; }
    all.sort((a, b) => a.x - b.x);
    const height = width < 500 ? 300 : 400, box = { left: 56, right: width - 12, top: 26, bottom: height - 42 };
    picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "application", "aria-label": `Rate and ${metric.label} of ${all.length} points: arrow keys go through them, Enter chooses a video` });
    const xRange = extent(all.map((one) => one.x), log), yRange = extent(all.map((one) => one.y));
    if (!log) xRange[0] = Math.max(0, xRange[0]);
    const x = scale(xRange, [box.left, box.right], log), y = scale(yRange, [box.bottom, box.top]);
    drawAxes(picture, box, x, y, log ? logTicks(...xRange) : linearTicks(...xRange, width / 90), linearTicks(...yRange, 6), "bits per pixel", metric.label + (metric.unit ? `, ${metric.unit}` : "") + (metric.higher ? " (higher is better)" : " (lower is better)"));
    const size = all.length > 500 ? 3 : width < 500 ? 5 : 5.5;
    for (const one of all) {
      const dot = svg("circle", { class: "point " + one.status, cx: x(one.x).toFixed(1), cy: y(one.y).toFixed(1), r: size });
      if (!matches(videos[one.place])) dot.classList.add("dim");
      picture.append(dot);
      points.push({ ...one, dot, cx: x(one.x), cy: y(one.y) });
    }
    const nearest = (event) => {
      const at = picture.getBoundingClientRect(), px = (event.clientX - at.x) * width / at.width, py = (event.clientY - at.y) * height / at.height;
      let best = -1, distance = 18 ** 2;
      points.forEach((point, number) => {
        const away = (point.cx - px) ** 2 + (point.cy - py) ** 2;
        if (away < distance && !point.dot.classList.contains("dim")) { best = number; distance = away; }
      });
      return best;
    };
    picture.addEventListener("pointermove", (event) => { if (moved(event)) { pointed = true; activate(nearest(event)); } });
    picture.addEventListener("pointerleave", () => { if (pointed) activate(-1); });
    picture.addEventListener("blur", () => activate(-1));
    picture.addEventListener("click", (event) => { const at = nearest(event); if (at >= 0) choose(points[at].place); });
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (step) { pointed = false; activate((active + step + points.length) % points.length, true); event.preventDefault(); }
      if (event.key === "Enter" && active >= 0) { choose(points[active].place); $("rd").querySelector("svg").focus(); }
      if (event.key === "Escape") activate(-1);
    });
    place.append(picture);
    const gops = $("rd-points").value === "gops";
    const sampled = gops && data.gops.length < data.gops_total ? `${figure(data.gops.length)} of ${figure(data.gops_total)} GOPs, drawn by lot. `
      : !gops && videos.length < data.videos.total ? `${figure(videos.length)} of ${figure(data.videos.total)} videos. ` : "";
    $("rd-note").textContent = `${sampled}Point at one for its figures; a click chooses its video, for every part of this page.`;
  }

  const redraw = responsive(place, draw);
  fillMetrics("rd-metric", () => redraw(), "lpips_alex");
  for (const id of ["rd-points", "rd-scale"]) $(id).addEventListener("change", () => redraw());
  const rated = videos.filter((video) => get(video, "bpp") !== null).length;
  if (rated < 8 && data.gops.length > rated) $("rd-points").value = "gops";
  return redraw;
}
