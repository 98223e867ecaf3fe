"use strict";
// The report: what its filters leave, and its parts, each of which is made once and drawn anew when they change.

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
    target: "Target", targets_missed: "Targets missed", target_met: "Met", probes: "Probes", policy_rule: "Rule", gop_index: "GOP", at: "At", q: "q",
    text_worst: "Worst text (SSIM)", face_worst: "Worst face (SSIM)", tile_worst: "Worst tile (SSIM)", text_density: "Text density", faces: "Faces",
    tile_worst_frame: "Tile in frame", tile_worst_x: "Tile x", tile_worst_y: "Tile y",
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
    rows.drawWorst();
    rows.drawVideos(left);
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

  function fillMetrics(id, redraw, preferred, those = metrics) {
    const select = $(id);
    for (const metric of those) select.append(element("option", { value: metric.name }, metric.label));
    if (preferred && names.has(preferred)) select.value = preferred;
    select.addEventListener("change", redraw);
    select.disabled = !those.length;
  }

  const page = { data, state, metrics, names, videos, get, title, matches, choose, update, fillMetrics, $ };
  fillFilters();
  makeHistograms(page);
  const rows = makeRows(page), drawScatter = makeScatter(page), drawCourse = makeCourse(page);
  fillMetrics("worst-metric", rows.drawWorst, "lpips_alex", data.worst);
  bindComparisons($("worst"));
  update();
  document.documentElement.dataset.ready = "yes";
})();
