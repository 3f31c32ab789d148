// The page of a run: what the server tells becomes text in elements, and nothing of it ever becomes HTML or code.
"use strict";

const $ = (id) => document.getElementById(id);
const RETRY = 3000; // ms until a connection that was refused is tried again
const ANNOUNCE_EVERY = 8000; // ms between two things that a screen reader is told, at least

let ended = false;
let sayings = null; // what to say next, and the timer that says it

// Said of the parts of tables, as these lose their meaning for screen readers where they are laid out as blocks.
const ROLES = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", th: "columnheader", td: "cell" };

function element(name, className, text) {
  const made = document.createElement(name);
  if (ROLES[name]) made.setAttribute("role", ROLES[name]);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function setText(target, text) {
  const wanted = String(text);
  if (target.textContent !== wanted) target.textContent = wanted;
}

function number(value) {
  return value.toLocaleString("en-US");
}

function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  if (all < 60) return `${all} s`;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const index = units.findIndex(([size]) => all >= size);
  const [size, unit] = units[index];
  const [smaller, name] = units[index + 1];
  const rest = Math.floor((all % size) / smaller);
  return `${Math.floor(all / size)} ${unit}${rest ? ` ${rest} ${name}` : ""}`;
}

// What changes is told to screen readers now and then, the newest alone.
function announce(text) {
  if (sayings) {
    sayings.text = text;
    return;
  }
  setText($("announcement"), text);
  sayings = { text: null };
  setTimeout(() => {
    const next = sayings.text;
    sayings = null;
    if (next) announce(next);
  }, ANNOUNCE_EVERY);
}

let noticed = ""; // what screen readers were told of the notice: once, however often its figures change

function notice(text, bad, said = text) {
  const place = $("notice");
  place.hidden = !text;
  place.classList.toggle("bad", Boolean(bad));
  if (said && said !== noticed) announce(said);
  noticed = said;
  setText(place, text);
}

// What the server answers, as an object; an error has words for the user.
async function ask(path, options) {
  let answer;
  let text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch {
    throw new Error("this page has lost its server");
  }
  if (!answer.ok) throw new Error(text.replace(/^\d+: /, ""));
  return JSON.parse(text);
}

// Tables: columns are {name, of, number, className, sort, bad}, or {name, button, shown, label, press}; rows are kept by
// their key, so that focus stays where it is.

class Table {
  constructor(place, empty, columns, key, rowClass) {
    this.place = $(place);
    this.empty = empty && $(empty);
    this.columns = columns;
    this.key = key;
    this.rowClass = rowClass;
    this.items = [];
    this.rows = new Map();
    this.sorted = null;
    this.falling = false;
    const table = element("table");
    const head = element("tr");
    this.heads = columns.map((column, index) => {
      const cell = element("th", column.number ? "number" : "");
      cell.scope = "col";
      if (column.sort) {
        const button = element("button", "", column.name);
        button.type = "button";
        button.addEventListener("click", () => this.sortBy(index));
        cell.append(button);
      } else if (column.button) {
        cell.append(element("span", "unseen", column.name));
      } else {
        cell.textContent = column.name;
      }
      head.append(cell);
      return cell;
    });
    this.body = element("tbody");
    table.append(element("thead"), this.body);
    table.tHead.append(head);
    this.place.append(table);
  }

  sortBy(index) {
    this.falling = this.sorted === index ? !this.falling : false;
    this.sorted = index;
    this.show(this.items);
  }

  show(items) {
    this.items = items;
    this.place.hidden = items.length === 0;
    if (this.empty) this.empty.hidden = items.length > 0;
    const order = [...items];
    if (this.sorted !== null) {
      const value = this.columns[this.sorted].sort;
      const sign = this.falling ? -1 : 1;
      order.sort((a, b) => sign * compare(value(a), value(b)));
    }
    this.heads.forEach((head, index) => {
      if (this.sorted === index) head.setAttribute("aria-sort", this.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const focused = document.activeElement;
    const left = new Set(this.rows.keys());
    order.forEach((item, position) => {
      const key = this.key(item);
      left.delete(key);
      let row = this.rows.get(key);
      if (!row) {
        row = this.newRow();
        this.rows.set(key, row);
      }
      this.fill(row, item);
      if (this.body.children[position] !== row) this.body.insertBefore(row, this.body.children[position] || null);
    });
    for (const key of left) {
      this.rows.get(key).remove();
      this.rows.delete(key);
    }
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  newRow() {
    const row = element("tr");
    for (const column of this.columns) {
      const cell = element("td", [column.number ? "number" : "", column.className || ""].join(" ").trim());
      row.append(cell);
      if (!column.button) {
        cell.dataset.label = column.name;
      } else {
        const button = element("button", "", column.button);
        button.type = "button";
        button.addEventListener("click", () => column.press(row.item));
        cell.append(button);
      }
    }
    return row;
  }

  fill(row, item) {
    row.item = item;
    if (this.rowClass) row.className = this.rowClass(item);
    this.columns.forEach((column, index) => {
      const cell = row.cells[index];
      if (column.button) {
        const button = cell.firstChild;
        button.hidden = ended || !column.shown(item);
        button.setAttribute("aria-label", column.label(item));
      } else {
        setText(cell, column.of(item));
        if (column.bad) cell.classList.toggle("bad", Boolean(column.bad(item)));
      }
    });
  }
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

// Stopping.

let stopping = null;

function askToStop(kind, rank, what) {
  stopping = { kind, rank };
  setText($("stop-title"), `Stop ${what}?`);
  $("stop-error").hidden = true;
  $("stop").showModal();
  $("stop-not").focus();
}

async function stop(now) {
  const buttons = $("stop").querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const told = await ask("stop", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...stopping, now }),
    });
    announce(told.words);
    $("stop").close();
  } catch (error) {
    setText($("stop-error"), `That did not work: ${error.message}`);
    $("stop-error").hidden = false;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

// What is shown.

let time = 0; // of the newest state, in seconds since the epoch, by the clock of the driver

const running = new Table("running-table", "running-none", [
  { name: "Task", of: (task) => task.task, number: true, sort: (task) => task.task },
  { name: "Since", of: (task) => duration(time - task.since), number: true, sort: (task) => -task.since },
  { name: "Host", of: (task) => task.node, sort: (task) => task.node },
  { name: "Line", of: (task) => task.line },
  { name: "Attempt", of: (task) => task.attempt, number: true, sort: (task) => task.attempt },
  { name: "Command", of: (task) => task.command, className: "command" },
], (task) => `${task.task} ${task.attempt}`);

const contexts = new Table("contexts-table", "contexts-none", [
  { name: "Context", of: (one) => one.label, sort: (one) => one.label },
  { name: "Kind", of: (one) => one.system, sort: (one) => one.system },
  { name: "State", of: (one) => (one.gone ? "gone" : "there"), sort: (one) => Number(one.gone) },
  { name: "Engines", of: (one) => number(one.engines), number: true, sort: (one) => one.engines },
  { name: "Assigned", of: (one) => number(one.assigned), number: true, sort: (one) => one.assigned },
  { name: "Limit", of: (one) => (one.limit ? number(one.limit) : "–"), number: true, sort: (one) => one.limit },
  {
    name: "Stop", button: "Stop…", shown: (one) => !one.gone, label: (one) => `Stop context ${one.label}`,
    press: (one) => askToStop("context", one.rank, `context ${one.label} with all of its engines`),
  },
], (one) => one.rank, (one) => (one.gone ? "gone" : ""));

const engines = new Table("engines-table", "engines-none", [
  { name: "Host", of: (one) => one.node, sort: (one) => one.node },
  { name: "Number", of: (one) => one.rank, number: true, sort: (one) => one.rank },
  { name: "Context", of: (one) => one.context, sort: (one) => one.context },
  { name: "State", of: (one) => one.state, sort: (one) => one.state, bad: (one) => one.state === "cut off" },
  { name: "In use", of: (one) => `${number(one.active)} of ${number(one.places)}`, number: true, sort: (one) => one.active },
  { name: "Assigned", of: (one) => number(one.assigned), number: true, sort: (one) => one.assigned },
  { name: "Finished", of: (one) => number(one.finished), number: true, sort: (one) => one.finished },
  { name: "Failed", of: (one) => number(one.failed), number: true, sort: (one) => one.failed, bad: (one) => one.failed },
  {
    name: "Last heard", of: (one) => (one.heard === null ? "–" : `${duration(time - one.heard)} ago`), number: true,
    sort: (one) => -(one.heard || 0),
  },
  {
    name: "Stop", button: "Stop…", shown: (one) => !one.gone,
    label: (one) => `Stop the engine on ${one.node}`,
    press: (one) => askToStop("engine", one.rank, `the engine on ${one.node}`),
  },
], (one) => one.rank, (one) => (one.gone ? "gone" : ""));

const found = new Table("find-table", null, [
  { name: "Task", of: (task) => task.task, number: true },
  { name: "Result", of: (task) => task.how, bad: (task) => !task.well },
  { name: "Took", of: (task) => task.took || "", number: true },
  { name: "Host", of: (task) => task.node },
  { name: "Line", of: (task) => task.line },
  { name: "Command", of: (task) => task.command, className: "command" },
  { name: "Output", of: (task) => task.out || "", className: "command" },
  { name: "Error output", of: (task) => task.err || "", className: "command" },
], (task) => task.key);

for (const table of [running, engines, found]) table.place.classList.add("tall");

const facts = new Map();

function fact(name, value, bad) {
  let place = facts.get(name);
  if (!place) {
    const box = element("div");
    const figure = element("dd");
    box.append(element("dt", "", name), figure);
    $("facts").append(box);
    place = { box, figure };
    facts.set(name, place);
  }
  place.box.hidden = value === null;
  place.box.className = bad ? "bad" : "";
  setText(place.figure, value === null ? "" : value);
}

let phase = null;
let rate = "";

function showRun(run) {
  time = run.time;
  const percent = run.total ? Math.min(100, (100 * run.done) / run.total) : null;
  const about = run.exact ? "" : "about ";
  setText($("job"), run.job);
  setText($("phase"), run.words);
  setText($("about"), `disbatch ${run.version} on ${run.host}`);
  document.title = percent === null ? run.job : `${Math.floor(percent)} % · ${run.job}`;
  const bar = $("bar");
  const share = (count) => `${run.total ? (100 * count) / run.total : 0}%`;
  const failed = Math.min(run.failed, run.done);
  $("bar-done").style.width = share(run.done - failed);
  $("bar-failed").style.width = share(failed);
  $("bar-running").style.width = share(run.running);
  const words = run.total === null
    ? `${number(run.done)} tasks done, nobody knows how many there will be`
    : `${number(run.done)} of ${about}${number(run.total)} tasks done, ${Math.floor(percent || 0)} %`;
  if (percent === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.floor(percent)));
  bar.setAttribute("aria-valuetext", words);
  setText($("bar-words"), words);
  fact("Done", number(run.done));
  fact("Failed", number(run.failed), run.failed > 0);
  fact("Running", number(run.running));
  fact("Waiting", `${run.exact || run.total === null || run.waiting === 0 ? "" : "~"}${number(run.waiting)}`);
  rate = run.rate;
  fact("Rate", rate);
  fact("Time left", run.left);
  fact("Elapsed", run.elapsed);
  fact("Places in use", `${number(run.running)} of ${number(run.places)}`);
  fact("Busy so far", run.busy === null ? null : `${run.busy} %`);
  fact("Skipped", run.skipped ? number(run.skipped) : null);
  fact("Interrupted", run.interrupted ? number(run.interrupted) : null);
  fact("Lost with engines", run.lost ? number(run.lost) : null, true);
  fact("Run again", run.rerun ? number(run.rerun) : null);
  if (phase !== null && phase !== run.words && !ended) announce(`The run: ${run.words}`);
  phase = run.words;
}

let silent = false;

function showSilence(told) {
  if (silent && !told.time) announce("The driver of the run answers again");
  silent = Boolean(told.time);
  if (silent) notice(`The driver of the run has not answered for ${told.time}`, true, "The driver of the run does not answer");
  else notice("");
}

function showHosts(hosts) {
  contexts.show(hosts.contexts);
  engines.show(hosts.engines);
}

function showRunning(told) {
  running.show(told.tasks);
  $("running-more").hidden = !told.more;
  setText($("running-more"), `and ${number(told.more)} more`);
}

let kinds = 0;

function showFailures(told) {
  $("failures-none").hidden = told.count > 0;
  setText($("failures-none"), told.behind ? "Reading what has been recorded…" : "Nothing so far.");
  const list = $("failures");
  told.groups.forEach((group, index) => {
    let item = list.children[index];
    if (!item) {
      item = element("li");
      const what = element("p", "what");
      what.append(element("strong"), element("span"));
      item.append(what, element("p", "text command"), element("p", "quiet hosts"), element("p", "quiet example"));
      item.lastChild.append(element("span"), element("code"));
      list.append(item);
    }
    const [what, text, hosts, example] = item.children;
    setText(what.firstChild, `${number(group.count)} ×`);
    setText(what.lastChild, group.how);
    setText(text, group.text);
    setText(hosts, group.hosts);
    setText(example.firstChild, `such as ${group.example}: `);
    setText(example.lastChild, group.command);
  });
  while (list.children.length > told.groups.length) list.lastChild.remove();
  const more = [];
  if (told.others) more.push(`and ${number(told.others)} more of other kinds`);
  if (told.count && told.behind) more.push("not all that has been recorded is read yet");
  $("failures-more").hidden = more.length === 0;
  setText($("failures-more"), more.join("; "));
  $("rerun").hidden = told.count === 0 || !told.rerun;
  setText($("rerun-command"), told.rerun);
  if (told.groups.length > kinds) {
    announce(`${number(told.count)} tasks failed, of ${number(told.groups.length)} ${told.groups.length > 1 ? "causes" : "cause"}`);
  }
  kinds = told.groups.length;
}

// Charts.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 130;

function chart(place, curves, words, top) {
  const figure = $(place);
  if (!figure.firstChild) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    for (const name of ["frame", "area", "limit", "curve"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
    svg.firstChild.setAttribute("d", `M0 ${HEIGHT - 0.5}H${WIDTH}`);
    const above = element("figcaption", "top");
    above.append(element("strong"), element("span"));
    figure.append(above, svg, element("p", "quiet axis"));
  }
  const [above, svg, axis] = figure.children;
  setText(above.firstChild, top[0]);
  setText(above.lastChild, top[1]);
  svg.setAttribute("aria-label", words);
  for (const [name, line] of Object.entries(curves)) svg.querySelector(`.${name}`).setAttribute("d", line);
  setText(axis, top[2]);
}

function line(points, index, most) {
  const first = points[0][0];
  const span = points[points.length - 1][0] - first || 1;
  return points.map((point) => {
    const x = ((point[0] - first) / span) * WIDTH;
    const y = HEIGHT - 1 - (point[index] / most) * (HEIGHT - 6);
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  }).join("L");
}

function showHistory(told) {
  const points = told.points;
  if (points.length < 2) return;
  const last = points[points.length - 1];
  const span = duration(last[0] - points[0][0]);
  const fastest = Math.max(...points.map((point) => point[1]));
  const most = Math.max(...points.map((point) => Math.max(point[2], point[3])));
  const speed = line(points, 1, fastest || 1);
  const used = line(points, 2, most || 1);
  const figure = (value) => number(value >= 10 ? Math.round(value) : Number(value.toFixed(2)));
  chart("rate-chart", { area: `M0 ${HEIGHT}L${speed}L${WIDTH} ${HEIGHT}Z`, curve: `M${speed}` },
    `Tasks that end: ${rate} now, ${figure(fastest)}/s at most in the last ${span}`,
    [rate, `${figure(fastest)}/s at most`, `the last ${span}`]);
  chart("places-chart", {
    area: `M0 ${HEIGHT}L${used}L${WIDTH} ${HEIGHT}Z`, curve: `M${used}`, limit: `M${line(points, 3, most || 1)}`,
  }, `Places in use: ${number(last[2])} of ${number(last[3])} now, over the last ${span}`,
  [`${number(last[2])} in use`, `${number(last[3])} there`, `the last ${span}`]);
}

// Finding.

async function find(event) {
  event.preventDefault();
  const status = $("find-status");
  const text = $("find-text").value;
  setText(status, "Searching…");
  try {
    const told = await ask(`find?${new URLSearchParams({ text })}`);
    found.show(told.tasks.map((task, key) => ({ ...task, key })));
    const shown = told.tasks.length;
    const words = [`${number(told.count)} found`];
    if (!told.count) words[0] += " among the tasks that run or have ended";
    if (told.count > shown) words[0] += `, the last ${number(shown)} are shown`;
    if (told.unlisted) words.push(`${number(told.unlisted)} tasks that run were not looked at`);
    if (!told.complete) words.push("there was no time to look through the whole status file");
    setText(status, words.join("; "));
  } catch (error) {
    setText(status, `That did not work: ${error.message}`);
  }
}

// Listening.

function listen() {
  const source = new EventSource("events");
  const on = (name, show) => source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  source.addEventListener("open", () => notice(""));
  on("silence", showSilence);
  on("run", showRun);
  on("hosts", showHosts);
  on("running", showRunning);
  on("failures", showFailures);
  on("history", showHistory);
  on("ended", (told) => {
    ended = true;
    source.close();
    notice(told.words, !told.well);
    for (const part of $("find").elements) part.disabled = true;
    setText($("find-status"), "The run has ended: its status file has what is to be found.");
    contexts.show(contexts.items);
    engines.show(engines.items);
    if ($("stop").open) $("stop").close();
  });
  source.addEventListener("error", () => {
    if (ended) return;
    notice("The connection is lost; trying again", true);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, RETRY);
  });
}

$("find").addEventListener("submit", find);
$("stop-soft").addEventListener("click", () => stop(false));
$("stop-hard").addEventListener("click", () => stop(true));
$("stop-not").addEventListener("click", () => $("stop").close());
listen();
