"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const metrics = data.metrics;
  const names = new Map(metrics.map((one) => [one.name, one]));
  const columns = new Map(data.videos.columns.map((name, at) => [name, at]));
  const videos = data.videos.rows.map((row, place) => ({ place, row }));
  const get = (video, name) => (columns.has(name) ? video.row[columns.get(name)] : null);
  const state = { text: "", status: "", video: null, sort: "source_name", down: false, shown: 50, course: null };

  const TITLES = {
    source_name: "Video", status: "Status", gops: "GOPs", frames: "Frames", seconds: "Duration", source_bytes: "Source",
    archive_bytes: "Archive", ratio: "Ratio", bpp: "bpp", kbps: "kbit/s", encode_fps: "Encode fps", codec: "Codec",
    target: "Target", targets_missed: "Targets missed", target_met: "Met", probes: "Probes", gop_index: "GOP", at: "At", q: "q",
  };

  function title(name) {
    if (TITLES[name]) return TITLES[name];
    const found = /^(.*)_(mean|worst|worst_frame)$/.exec(name);
    if (!found || !names.has(found[1])) return name;
    const metric = names.get(found[1]);
    if (found[2] === "worst_frame") return "Frame of GOP";
    return (found[2] === "worst" ? "Worst " : "Mean ") + metric.label + (metric.unit ? ` (${metric.unit})` : "");
  }

  // ---- filters

  function matches(video) {
    if (state.video !== null) return video.place === state.video;
    if (state.status && get(video, "status") !== state.status) return false;
    return !state.text || get(video, "source_name").toLowerCase().includes(state.text);
  }

  // Whether a row that the template made belongs to what the filters leave.
  function belongs(row) {
    const name = row.dataset.name;
    if (state.video !== null) {
      const chosen = get(videos[state.video], "source_name");
      return name === chosen || name.startsWith(chosen + " GOP ");
    }
    if (state.status && row.dataset.status && !row.dataset.status.startsWith(state.status)) return false;
    if (state.status && !row.dataset.status && row.dataset.video !== undefined && get(videos[row.dataset.video], "status") !== state.status) return false;
    return !state.text || row.textContent.toLowerCase().includes(state.text);
  }

  function update() {
    const left = videos.filter(matches);
    $("matching").textContent = left.length === videos.length ? "" : `${figure(left.length)} of ${figure(videos.length)} videos`;
    document.querySelectorAll(".filtered tbody tr, .stills > .card").forEach((row) => { row.hidden = !belongs(row); });
    document.querySelectorAll(".filtered").forEach((table) => note(table, ![...table.tBodies[0].rows].some((row) => !row.hidden)));
    const stills = [...document.querySelectorAll(".stills > .card")];
    if ($("no-stills")) $("no-stills").hidden = stills.some((card) => !card.hidden);
    drawScatter();
    drawWorst();
    drawVideos(left);
    drawCourse();
  }

  function note(table, empty) {
    let line = table.parentElement.nextElementSibling;
    if (!line || !line.classList.contains("left-nothing")) {
      line = element("p", { class: "empty left-nothing" }, "Nothing here belongs to what the filters leave.");
      table.parentElement.after(line);
    }
    line.hidden = !empty;
  }

  function choose(place) {
    state.video = place;
    if (place !== null) state.course = place;
    $("video").value = place === null ? "" : String(place);
    update();
  }

  function fillFilters() {
    for (const video of videos) $("video").append(element("option", { value: video.place }, get(video, "source_name")));
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("text").addEventListener("input", () => { state.text = $("text").value.trim().toLowerCase(); state.shown = 50; update(); });
    $("status").addEventListener("change", () => { state.status = $("status").value; state.shown = 50; update(); });
    $("video").addEventListener("change", () => choose($("video").value === "" ? null : +$("video").value));
    $("filters").addEventListener("reset", () => { Object.assign(state, { text: "", status: "", video: null, shown: 50 }); setTimeout(update); });
    const there = new Set(videos.map((video) => get(video, "status")));
    for (const option of $("status").options) option.disabled = option.value !== "" && !there.has(option.value);
  }

  function fillMetrics(id, redraw, preferred) {
    const select = $(id);
    for (const metric of metrics) select.append(element("option", { value: metric.name }, metric.label));
    if (preferred && names.has(preferred)) select.value = preferred;
    select.addEventListener("change", redraw);
    select.disabled = !metrics.length;
  }

  // ---- scatter of rate and quality

  let drawScatter = () => {};
  function scatter() {
    const place = $("rd");
    let active = -1, points = [], picture = null;

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
      picture.addEventListener("pointermove", (event) => activate(nearest(event)));
      picture.addEventListener("pointerleave", () => activate(-1));
      picture.addEventListener("blur", () => activate(-1));
      picture.addEventListener("click", (event) => { const at = nearest(event); if (at >= 0) choose(points[at].place); });
      picture.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        if (step) { activate((active + step + points.length) % points.length, true); event.preventDefault(); }
        if (event.key === "Enter" && active >= 0) { choose(points[active].place); $("rd").querySelector("svg").focus(); }
        if (event.key === "Escape") activate(-1);
      });
      place.append(picture);
      const gops = $("rd-points").value === "gops";
      const sampled = gops && data.gops.length < data.gops_total ? `${figure(data.gops.length)} of ${figure(data.gops_total)} GOPs, drawn by lot. `
        : !gops && videos.length < data.videos.total ? `${figure(videos.length)} of ${figure(data.videos.total)} videos. ` : "";
      $("rd-note").textContent = `${sampled}Point at one for its figures; a click chooses its video, for every part of this page.`;
    }

    drawScatter = responsive(place, draw);
    fillMetrics("rd-metric", () => drawScatter(), "lpips_alex");
    for (const id of ["rd-points", "rd-scale"]) $(id).addEventListener("change", () => drawScatter());
    const rated = videos.filter((video) => get(video, "bpp") !== null).length;
    if (rated < 8 && data.gops.length > rated) $("rd-points").value = "gops";
  }

  // ---- distributions

  function histograms() {
    const place = $("histograms");
    if (!data.histograms.length) place.append(element("p", { class: "empty" }, "There are no figures."));
    for (const one of data.histograms) {
      const holder = element("div", {});
      place.append(holder);
      responsive(holder, (_, width) => drawHistogram(holder, one, width))();
    }
  }

  function drawHistogram(holder, one, width) {
    const height = 150, box = { left: 34, right: width - 14, top: 10, bottom: height - 24 };
    const most = Math.max(...one.counts), total = one.counts.reduce((a, b) => a + b, 0), count = one.counts.length;
    const name = one.figure === "bpp" ? "Bits per pixel" : one.figure === "q" ? "Quality index q" : one.figure === "encode_fps" ? "Encoding, frames a second" : title(one.figure);
    if (count === 1) {
      const [from, to] = [one.low, one.low + one.step].map((value) => String(+value.toPrecision(4)));
      const value = one.figure === "q" || from === to ? from : `${from} to ${to}`;
      holder.replaceChildren(element("h4", {}, name), element("p", { class: "empty" }, `${value} for all ${figure(total)}`));
      return;
    }
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${name}: ${total} GOPs from ${+one.low.toPrecision(4)} to ${+(one.low + one.step * count).toPrecision(4)}` });
    const high = one.low + one.step * count, centred = one.figure === "q" ? one.step / 2 : 0;
    const x = scale([one.low, high], [box.left, box.right]), y = scale([0, most], [box.bottom, box.top]);
    const ticks = linearTicks(one.low, high, Math.max(2, width / 75)).filter(({ value }) => !centred || (value < high && Number.isInteger(value)));
    drawAxes(picture, box, (value) => x(value + centred), y, ticks, linearTicks(0, most, 3).filter(({ value }) => Number.isInteger(value)));
    const digits = Math.max(0, -Math.floor(Math.log10(one.step) + 1e-9));
    one.counts.forEach((number, at) => {
      const left = x(one.low + at * one.step), wide = Math.max(1, x(one.low + (at + 1) * one.step) - left - 1);
      const from = (one.low + at * one.step).toFixed(digits), to = (one.low + (at + 1) * one.step).toFixed(digits);
      const below = at === 0 && one.below, above = at === count - 1 && one.above;
      const range = one.figure === "q" ? from : below ? `≤ ${to}` : above ? `≥ ${from}` : `${from} to ${to}`;
      const bar = svg("rect", { class: "bar", x: left, width: wide, y: y(number), height: Math.max(number ? 1 : 0, box.bottom - y(number)) });
      bar.addEventListener("pointermove", (event) => tip.show(`${name}\n${range}\n${figure(number)} GOPs, ${(100 * number / total).toFixed(1)} %`, event.clientX, event.clientY));
      bar.addEventListener("pointerleave", () => tip.hide());
      picture.append(bar);
      if (below) picture.append(svg("text", { x: left, y: box.top, "text-anchor": "start" }, "≤"));
      if (above) picture.append(svg("text", { x: left + wide, y: box.top, "text-anchor": "end" }, "≥"));
    });
    holder.replaceChildren(element("h4", {}, name), picture);
  }

  // ---- one video over time

  let drawCourse = () => {};
  const courses = Object.keys(data.timelines).map(Number).sort((a, b) => a - b);
  function course() {
    const place = $("timeline");

    function draw(_, width) {
      place.replaceChildren();
      tip.hide();
      const left = courses.filter((at) => matches(videos[at]));
      if (state.course === null || !matches(videos[state.course])) state.course = left.length ? left[0] : null;
      const at = left.indexOf(state.course), line = data.timelines[state.course];
      $("previous").disabled = !left.length || at === 0;
      $("next").disabled = !left.length || at === left.length - 1;
      $("course-note").textContent = "";
      $("course-name").textContent = state.course === null ? "" : get(videos[state.course], "source_name");
      if (!line) {
        const why = !courses.length ? "No video here was compressed." : state.course === null ? "No video that the filters leave has a course in this file." : "This file holds no course of this video: it failed, or it is beyond those that the file has room for.";
        place.append(element("p", { class: "empty" }, why));
        return;
      }
      const metric = names.get($("course-metric").value);
      const height = metric ? 360 : 190, right = width - 12, split = metric ? 210 : 0;
      const upper = { left: 56, right, top: 26, bottom: split - 10 }, lower = { left: 56, right, top: split + 24, bottom: height - 26 };
      const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "application", "aria-label": `Course of ${get(videos[state.course], "source_name")}: arrow keys go from GOP to GOP` });
      const span = [Math.min(0, line.at[0]), Math.max(...line.until.filter((one) => one !== null), line.at[line.at.length - 1])];
      if (span[1] <= span[0]) span[1] = span[0] + 1;
      const x = scale(span, [56, right]), ends = line.at.map((from, number) => line.until[number] ?? line.at[number + 1] ?? span[1]);
      const ticks = clockTicks(...span, Math.max(3, width / 80));
      const rate = [0, Math.max(...line.bpp) * 1.06 || 1], rateY = scale(rate, [lower.bottom, lower.top]);
      drawAxes(picture, lower, x, rateY, ticks, linearTicks(...rate, 3), "", "Rate, bits per pixel");
      line.bpp.forEach((value, number) => picture.append(svg("rect", { class: "bar", x: x(line.at[number]).toFixed(1), y: rateY(value).toFixed(1), width: Math.max(0.5, x(ends[number]) - x(line.at[number]) - (line.bpp.length < 200 ? 1 : 0)).toFixed(1), height: Math.max(0.5, lower.bottom - rateY(value)).toFixed(1) })));
      if (metric) {
        const mean = line[metric.name + "_mean"], worst = line[metric.name + "_worst"];
        const y = scale(extent([...mean, ...worst]), [upper.bottom, upper.top]);
        drawAxes(picture, upper, x, y, [], linearTicks(...extent([...mean, ...worst]), 5), "", metric.label + (metric.unit ? `, ${metric.unit}` : "") + (metric.higher ? " (higher is better)" : " (lower is better)"));
        for (const [kind, values] of [["mean", mean], ["worst", worst]]) {
          let path = "", drawn = false;
          values.forEach((value, number) => {
            if (value === null) { drawn = false; return; }
            path += `${drawn ? "L" : "M"}${x(line.at[number]).toFixed(1)} ${y(value).toFixed(1)}H${x(ends[number]).toFixed(1)}`;
            drawn = true;
          });
          picture.append(svg("path", { class: kind, d: path }));
        }
      }
      const cursor = svg("rect", { class: "cursor", y: metric ? upper.top : lower.top, height: lower.bottom - (metric ? upper.top : lower.top), fill: "none", visibility: "hidden" });
      picture.append(cursor);
      let active = -1;
      const activate = (number, clientX, clientY) => {
        active = number;
        if (number < 0) { cursor.setAttribute("visibility", "hidden"); tip.hide(); return; }
        cursor.setAttribute("x", x(line.at[number]));
        cursor.setAttribute("width", Math.max(1, x(ends[number]) - x(line.at[number])));
        cursor.setAttribute("visibility", "visible");
        const last = line.gop[number] + line.per - 1, lines = [(line.per > 1 ? `GOPs ${line.gop[number]} to ${last}` : `GOP ${line.gop[number]}`) + ` at ${clock(line.at[number])}`, `${figure(line.bpp[number], "bpp")} bpp, q ${figure(line.q[number], "q")}`];
        for (const one of metrics) if (line[one.name + "_mean"][number] !== null) lines.push(`${one.label} ${figure(line[one.name + "_mean"][number], one.name + "_mean")}, worst ${figure(line[one.name + "_worst"][number], one.name + "_worst")}`);
        const box = picture.getBoundingClientRect();
        tip.show(lines.join("\n"), clientX ?? box.x + x(line.at[number]) * box.width / width, clientY ?? box.y + 40);
        picture.setAttribute("aria-label", lines.join(", "));
      };
      picture.addEventListener("pointermove", (event) => {
        const box = picture.getBoundingClientRect(), px = (event.clientX - box.x) * width / box.width;
        const number = line.at.findIndex((from, one) => px >= x(from) && px < x(ends[one]));
        activate(number, event.clientX, event.clientY);
      });
      picture.addEventListener("pointerleave", () => activate(-1));
      picture.addEventListener("blur", () => activate(-1));
      picture.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) { activate(Math.min(line.at.length - 1, Math.max(0, active + step))); event.preventDefault(); }
        if (event.key === "Escape") activate(-1);
      });
      const legend = element("p", { class: "legend" });
      if (metric) legend.append(element("span", { class: "mean" }, "mean of the measured frames"), element("span", { class: "worst" }, "worst frame"));
      legend.append(element("span", { class: "rate" }, "rate"));
      place.append(picture, legend);
      if (line.per > 1) $("course-note").textContent = `Each step is ${line.per} GOPs: their mean rate and quality, and their worst frame.`;
    }

    drawCourse = responsive(place, draw);
    fillMetrics("course-metric", () => drawCourse(), "lpips_alex");
    const go = (step) => {
      const left = courses.filter((at) => matches(videos[at]));
      const to = left[left.indexOf(state.course) + step];
      if (to !== undefined) { state.course = to; drawCourse(); }
    };
    $("previous").addEventListener("click", () => go(-1));
    $("next").addEventListener("click", () => go(1));
  }

  // ---- tables

  const FIGURES = /^(?!source_name|status|codec|target$|target_met|job)/;
  const WIDE = new Set(["frames", "gops", "source_bytes", "kbps", "encode_fps", "q_min", "q_max", "codec", "target", "probes"]);

  function cell(name, value, kind = "td") {
    const made = element(kind, { class: (FIGURES.test(name) ? "n" : "") + (WIDE.has(name) ? " wide" : "") });
    if (name === "status") made.append(element("b", { class: value === "ok" ? "good" : value }, value));
    else made.textContent = name === "at" ? (value === null ? "–" : clock(value)) : figure(value, name);
    return made;
  }

  function nameCell(place, text) {
    const made = element("th", { scope: "row" });
    if (place === null) { made.textContent = text; return made; }
    const button = element("button", { type: "button", title: "Show this video alone" }, text);
    button.addEventListener("click", () => { choose(place); $("course").scrollIntoView(); });
    made.append(button);
    return made;
  }

  function region(label) { return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }); }

  function drawVideos(left) {
    const place = $("video-table"), had = document.activeElement?.dataset?.column;
    if (!videos.length) { place.replaceChildren(element("p", { class: "empty" }, "There are none.")); return; }
    const hidden = new Set(["job", "q_min", "q_max", "later_job", "frames"]);
    if (new Set(videos.map((video) => get(video, "codec")).filter((one) => one !== null)).size < 2) hidden.add("codec");
    const shown = data.videos.columns.filter((name) => !hidden.has(name));
    const head = element("tr");
    for (const name of shown) {
      const button = element("button", { type: "button", "data-column": name }, title(name) + (state.sort === name ? (state.down ? " ↓" : " ↑") : ""));
      button.addEventListener("click", () => { state.down = state.sort === name && !state.down; state.sort = name; update(); });
      const holder = element("th", { scope: "col", class: (FIGURES.test(name) ? "n" : "") + (WIDE.has(name) ? " wide" : ""), "aria-sort": state.sort === name ? (state.down ? "descending" : "ascending") : "none" }, button);
      head.append(holder);
    }
    const order = state.down ? -1 : 1;
    const rows = [...left].sort((a, b) => {
      const p = get(a, state.sort), q = get(b, state.sort);
      if (p === null || q === null) return (p === null) - (q === null);
      return order * (typeof p === "string" ? p.localeCompare(q) : p - q);
    });
    const body = element("tbody");
    for (const video of rows.slice(0, state.shown)) {
      const row = element("tr", state.video === video.place ? { class: "selected" } : {});
      for (const name of shown) row.append(name === "source_name" ? nameCell(video.place, get(video, name)) : cell(name, get(video, name)));
      body.append(row);
    }
    const holder = region("Videos");
    holder.append(element("table", {}, element("thead", {}, head), body));
    const parts = [holder];
    if (!rows.length) parts.push(element("p", { class: "empty" }, "The filters leave no video."));
    if (rows.length > state.shown) {
      const button = element("button", { type: "button", class: "more" }, `Show ${Math.min(200, rows.length - state.shown)} more of ${figure(rows.length)}`);
      button.addEventListener("click", () => { state.shown += 200; update(); });
      parts.push(button);
    }
    place.replaceChildren(...parts);
    if (had) place.querySelector(`[data-column="${had}"]`)?.focus();
  }

  function drawWorst() {
    const place = $("worst-table"), metric = $("worst-metric").value, table = data.worst[metric];
    if (!table || !table.rows.length) { place.replaceChildren(element("p", { class: "empty" }, "Nothing was measured: no GOP is known to be worse than another.")); return; }
    const at = table.columns.indexOf("source_name") + 1;
    const left = table.rows.filter((row) => {
      if (row[0] !== null) return matches(videos[row[0]]);
      return state.video === null && !state.status && row[at].toLowerCase().includes(state.text);
    });
    const head = element("tr"), body = element("tbody");
    for (const name of table.columns) head.append(element("th", { scope: "col", class: (FIGURES.test(name) ? "n" : "") + (WIDE.has(name) ? " wide" : "") }, title(name)));
    for (const row of left) {
      const line = element("tr");
      table.columns.forEach((name, number) => line.append(name === "source_name" ? nameCell(row[0], row[number + 1]) : cell(name, row[number + 1])));
      body.append(line);
    }
    const holder = region("Worst GOPs");
    holder.append(element("table", {}, element("thead", {}, head), body));
    place.replaceChildren(left.length ? holder : element("p", { class: "empty" }, "None of the worst GOPs belongs to what the filters leave."));
  }

  fillFilters();
  scatter();
  histograms();
  course();
  fillMetrics("worst-metric", drawWorst, "lpips_alex");
  bindComparisons($("worst"));
  update();
  document.documentElement.dataset.ready = "yes";
})();
