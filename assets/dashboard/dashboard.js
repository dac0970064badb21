// Brings the page to life: reads server-sent events, puts the parts in place that have changed, and draws the
// charts. All texts are made by the program. Events are read with fetch, because EventSource cannot send
// an Authorization header.
"use strict";
(() => {
  const KEY = "unified-nats-authorization";
  const RENEWED_KEY = "unified-nats-renewed";
  // The stream has a sign of life every five seconds.
  const SILENCE_MS = 12000;
  const LONGEST_WAIT_MS = 5000;
  // Between two looks of a tab that nobody sees.
  const UNSEEN_WAIT_MS = 30000;
  const page = document.documentElement;
  const by = (id) => document.getElementById(id);
  const [connection, login, data, locked] = ["connection", "login", "data", "locked"].map(by);
  let charts = null;
  let lastData = null;

  // ---- who asks ----

  const remembered = () => { try { return sessionStorage.getItem(KEY); } catch { return null; } };
  let authorization = remembered();
  const remember = (value) => {
    authorization = value;
    try {
      if (value === null) sessionStorage.removeItem(KEY); else sessionStorage.setItem(KEY, value);
    } catch { /* It lasts as long as the page then. */ }
  };
  // Once for each version: behind what balances loads page and events may come from different brokers.
  const renew = (version) => {
    try {
      if (sessionStorage.getItem(RENEWED_KEY) === version) return;
      sessionStorage.setItem(RENEWED_KEY, version);
      location.reload();
    } catch { /* Somebody reloads it. */ }
  };
  const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

  // Resolves once somebody has shown something.
  const ask = (why) => new Promise((resolve) => {
    say("Not signed in", false);
    data.hidden = true;
    login.hidden = false;
    by("login-why").textContent = why;
    by("login-secret").value = "";
    by("login-secret").focus();
    login.addEventListener("submit", (event) => {
      event.preventDefault();
      const user = login.elements.user.value;
      const secret = login.elements.secret.value;
      remember(user ? `Basic ${base64(`${user}:${secret}`)}` : `Bearer ${secret}`);
      login.hidden = true;
      resolve();
    }, { once: true });
  });

  // ---- what it shows ----

  function say(text, isLost) {
    if (connection.textContent !== text) connection.textContent = text;
    connection.classList.toggle("is-lost", isLost);
    page.classList.toggle("is-stale", isLost);
  }

  function put({ title, tone, sections }) {
    document.title = title;
    page.dataset.tone = tone;
    for (const [id, html] of Object.entries(sections)) {
      const place = by(id);
      if (place === null) continue;
      const left = place.scrollLeft;
      place.innerHTML = html;
      place.scrollLeft = left;
    }
    lastData = new Date();
    if (locked) locked.hidden = true;
    login.hidden = true;
    data.hidden = false;
    say("Live", false);
  }

  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const numbers = (values) => values.map((value) => compact.format(value));
  // As the program says them: in powers of 1024.
  const BYTE_STEPS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const POWERS_OF_TWO = Array.from({ length: 50 }, (_, at) => 2 ** at);
  const bytes = (values) => values.map((value) => {
    let step = 0;
    for (; value >= 1023.5 && step + 1 < BYTE_STEPS.length; step += 1) value /= 1024;
    return `${compact.format(value)} ${BYTE_STEPS[step]}`;
  });

  function chart(place, lines, format) {
    const colour = (name) => getComputedStyle(page).getPropertyValue(name).trim();
    const axis = { stroke: colour("--hint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const times = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "UTC" });
    const time = (at) => (at === null || at === undefined ? "–" : times.format(new Date(at * 1000)));
    const serie = ([label, name]) => ({ label, stroke: colour(name), width: 1.5, spanGaps: false,
      value: (_, value) => (value === null || value === undefined ? "–" : format([value])[0]) });
    return new uPlot({
      width: place.clientWidth, height: 170, cursor: { drag: { x: false, y: false } }, legend: { show: true },
      // In UTC, as all times of the page.
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      scales: {
        // uPlot would give a day to a chart of one point.
        x: { range: (plot, least, most) => {
          const at = least ?? Date.now() / 1000;
          return plot.data[0].length > 1 ? [least, most] : [at - 300, at + 300];
        } },
        y: { range: (_, least, most) => [0, Math.max(most || 0, 1) * 1.1] },
      },
      axes: [{ ...axis, space: 70, values: (_, values) => values.map(time) }, { ...axis, size: 64, values: (_, values) => format(values), ...(format === bytes && { incrs: POWERS_OF_TWO }) }],
      series: [{ label: "Time", value: (_, at) => time(at) }, ...lines.map(serie)],
    }, lines.map(() => []).concat([[]]), place);
  }

  function makeCharts() {
    by("charts").hidden = false;
    if (charts !== null) charts.made.forEach((one) => one.destroy());
    charts = { last: charts && charts.last, made: [
      chart(by("chart-hour"), [["Received", "--received"], ["Sent", "--sent"]], numbers),
      chart(by("chart-day"), [["Store", "--received"]], bytes),
    ] };
  }

  function draw(history) {
    if (typeof uPlot === "undefined") return;
    if (charts === null) makeCharts();
    charts.last = history;
    const { hour, day } = history;
    charts.made[0].setData([hour.at, hour.received || [], hour.sent || []]);
    charts.made[1].setData([day.at, day.stored || []]);
    const last = (values) => (values || []).filter((value) => value !== null).at(-1);
    const describe = (id, text, value) => value !== undefined && by(id).setAttribute("aria-label", `${text}; now ${value}`);
    const received = last(hour.received);
    describe("chart-hour", "Messages per second over the last hour", received !== undefined ? `${received} received` : undefined);
    const stored = last(day.stored);
    describe("chart-day", "Size of the store over the last day", stored !== undefined ? bytes([stored])[0] : undefined);
  }

  let resizing = null;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => charts && charts.made.forEach((one) => {
      one.setSize({ width: one.root.parentElement.clientWidth, height: 170 });
    }), 100);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (charts !== null) { makeCharts(); draw(charts.last); }
  });

  // ---- who sees it ----

  // Over HTTP/1.1 a browser has six connections to a broker for all its tabs, so that a tab that nobody sees
  // holds none: it looks now and then, for its title.
  const isSeen = () => document.visibilityState !== "hidden";
  let wake = () => {};
  let rest = () => {};
  const wait = (ms) => new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wake = () => { clearTimeout(timer); resolve(); };
  });
  document.addEventListener("visibilitychange", () => { if (isSeen()) wake(); else rest(); });

  // ---- the stream ----

  function take(block) {
    let kind = "message";
    const lines = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) lines.push(line.slice(6));
    }
    if (lines.length === 0) return null;
    const value = JSON.parse(lines.join("\n"));
    if (kind === "begin" && value.version !== page.dataset.version) renew(value.version);
    else if (kind === "sections") put(value);
    else if (kind === "charts") draw(value);
    return kind;
  }

  // Reads one stream to its end. Gives what stands in the way where somebody has to show something.
  async function follow() {
    const stop = new AbortController();
    let watchdog = setTimeout(() => stop.abort(), SILENCE_MS);
    let [isPut, isResting] = [false, false];
    rest = () => { if (isPut) { isResting = true; stop.abort(); } };
    const alive = () => { clearTimeout(watchdog); watchdog = setTimeout(() => stop.abort(), SILENCE_MS); };
    try {
      // Without credentials, so that the browser does not ask with a window of its own.
      const answer = await fetch("api/v1/broker/live", {
        headers: authorization === null ? {} : { Authorization: authorization },
        credentials: "omit", cache: "no-store", signal: stop.signal,
      });
      if (answer.status === 401 || answer.status === 403) return { refused: authorization !== null };
      if (!answer.ok) throw new Error(`the broker answers with ${answer.status}`);
      const reader = answer.body.getReader();
      const decoder = new TextDecoder();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return { served: true };
        alive();
        text += decoder.decode(value, { stream: true });
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          if (take(text.slice(0, end)) === "sections") isPut = true;
          text = text.slice(end + 2);
        }
        if (isPut && !isSeen()) return { isResting: true };
      }
    } catch (error) {
      if (isResting) return { isResting };
      throw error;
    } finally {
      rest = () => {};
      clearTimeout(watchdog);
      stop.abort();
    }
  }

  async function run() {
    // Whoever shows nothing where something is asked for is asked, without a request that fails first.
    if (locked && authorization === null) await ask("");
    let pause = 500;
    for (;;) {
      try {
        const end = await follow();
        if (end.isResting) {
          await wait(UNSEEN_WAIT_MS);
          if (isSeen()) say("Connecting…", false);
          pause = 500;
          continue;
        }
        if (end.refused !== undefined) {
          remember(null);
          await ask(end.refused ? "That is not let in. Try again." : "");
          continue;
        }
        pause = 500;
      } catch { /* It is tried again. */ }
      const since = lastData === null ? "" : `; this is as of ${lastData.toISOString().slice(11, 19)} UTC`;
      say(`✕ No connection to the broker${since}. Trying again…`, true);
      document.title = "✕ no connection – unified-nats";
      page.dataset.tone = "bad";
      await wait(pause);
      pause = Math.min(pause * 2, LONGEST_WAIT_MS);
    }
  }

  run();
})();
