// Caption jobs. A job runs on the server whether a page looks or not; this asks for what there is to see, puts it into
// the page piece by piece, and sends what a person does. Which jobs are this browser's is kept here.
(() => {
  const PLACE = "omni-jobs"; // ids, the latest first
  const FAST = 250; // ms between two looks at a job that runs, at least
  const REST = 4; // times as long as a look took: one at hours of sound brings megabytes
  const AGAIN = 2000; // ms until what failed is tried again
  const SAVE = 600; // ms after the last key until a caption is saved
  const box = () => document.querySelector("#omni-job");

  let job = "";
  let page = 0;
  let item = null; // the file that is open
  let seen = ""; // what the server gave last, to be told only news
  let active = false;
  let timer = 0;
  let look = 0; // counts the looks, so that a late answer to an old one is dropped
  let pressed = false; // a pointer is down: what lies under it must still be there when it goes up
  const unsaved = new Map(); // job:item:number → what a person wrote there

  // Which jobs there are

  function jobs() {
    try {
      return JSON.parse(localStorage.getItem(PLACE)) ?? [];
    } catch {
      return job ? [job] : []; // storage is closed to pages inside other sites
    }
  }

  function keep(ids) {
    try {
      localStorage.setItem(PLACE, JSON.stringify(ids.slice(0, 20)));
    } catch {
      // see above
    }
  }

  omni.openJob = (id) => {
    if (!id) return;
    keep([id, ...jobs().filter((other) => other !== id)]);
    open(id);
    box().scrollIntoView({ block: "start", behavior: "smooth" });
  };

  function open(id) {
    [job, page, item, seen, active] = [id, 0, null, "", false];
    omni.tell("");
    lay();
    watch();
    listEarlier();
  }

  function close() {
    keep(jobs().filter((other) => other !== job));
    job = "";
    look++;
    clearTimeout(timer);
    box().replaceChildren();
    listEarlier();
  }

  async function listEarlier() {
    const others = jobs().filter((id) => id !== job);
    const reply = others.length ? await ask(`?ids=${others}&lang=${omni.language}`) : null;
    let place = document.querySelector("#omni-earlier");
    if (!place) {
      place = document.createElement("section");
      place.id = "omni-earlier";
      box().after(place);
    }
    const { html = "", ids = [] } = reply?.ok ? await reply.json() : {};
    if (reply?.ok) keep(jobs().filter((id) => id === job || ids.includes(id) || !others.includes(id)));
    place.innerHTML = html;
    for (const time of place.querySelectorAll("time")) {
      time.textContent = new Date(1000 * time.dataset.at).toLocaleString(omni.language, {
        dateStyle: "medium",
        timeStyle: "short",
      });
    }
  }

  // Asking the server

  const ask = (path, options) =>
    fetch(`captions/${path}`, { cache: "no-store", ...options }).catch(() => undefined);

  async function watch() {
    clearTimeout(timer);
    if (!job) return;
    const mine = ++look;
    const about = new URLSearchParams({ lang: omni.language, page, seen });
    if (item !== null) about.set("item", item);
    const began = performance.now();
    const reply = await ask(`${job}?${about}`);
    const board = reply?.status === 200 ? await reply.json().catch(() => undefined) : undefined;
    if (mine !== look) return;
    const lost = !reply || reply.status >= 500;
    if (lost) omni.tell(omni.say("jobs.lost"));
    else if (document.querySelector("#omni-refused")?.textContent === omni.say("jobs.lost")) omni.tell("");
    if (reply?.status === 404) {
      const { error } = await reply.json().catch(() => ({}));
      close();
      if (error) omni.tell(error);
      return;
    }
    if (board && !pressed) {
      seen = reply.headers.get("X-Seen");
      show(board);
    }
    const rest = Math.max(FAST, REST * (performance.now() - began));
    if (active || lost) timer = setTimeout(watch, lost || document.hidden ? Math.max(AGAIN, rest) : rest);
  }

  async function act(what, about = {}) {
    const reply = await ask(`${job}/${what}?lang=${omni.language}`, { method: "POST", body: JSON.stringify(about) });
    const error = reply?.ok ? "" : reply ? (await reply.json().catch(() => ({}))).error : omni.say("jobs.lost");
    omni.tell(error ?? omni.say("page.failed"));
    return !error && reply.ok;
  }

  // Showing

  function lay() {
    box().innerHTML = `
      <section class="omni-board" tabindex="-1">
        <div class="omni-summary"></div><div class="omni-controls"></div>
        <div class="omni-table"><table><thead></thead><tbody></tbody></table></div><div class="omni-pager"></div>
      </section>
      <section class="omni-open" hidden>
        <div class="omni-name"></div><div class="omni-player"></div><div class="omni-wave"></div><ol></ol>
      </section>`;
  }

  const find = (selector) => box().querySelector(selector);

  function show(board) {
    const ended = active && !board.active;
    active = board.active;
    put(find(".omni-summary"), board.summary);
    put(find(".omni-controls"), board.controls);
    put(find("thead"), board.heads);
    put(find(".omni-pager"), board.pager);
    putRows(find("tbody"), "tr", board.rows, () => false);
    find(".omni-table").hidden = !board.rows.length;
    showOpen(board.open);
    if (ended) omni.announce(find(".omni-far").textContent);
  }

  function showOpen(open) {
    const place = find(".omni-open");
    place.hidden = !open;
    if (!open) return;
    const fresh = place.dataset.item !== String(open.item);
    if (fresh) {
      place.dataset.item = open.item;
      find("ol").replaceChildren();
    }
    put(find(".omni-name"), open.head);
    put(find(".omni-player"), open.player);
    put(find(".omni-wave"), open.wave);
    putRows(find("ol"), "li", open.rows, (row) => busy(row) || unsaved.has(`${job}:${open.item}:${row.dataset.id}`));
    follow();
    for (const row of find("tbody").rows) row.classList.toggle("omni-chosen", row.dataset.id === String(open.item));
    if (fresh && item !== null) {
      find("h2").focus({ preventScroll: true });
      place.scrollIntoView({ block: "start" });
    }
  }

  const FOCUSABLE = "button, input, textarea, summary, audio, video";
  const inside = (element, what) => [...element.querySelectorAll(what)];

  // New HTML in the place of the old one. What a person has unfolded, ticked or focused there stays so: the focus goes
  // to what is like its element, else to what stands nearest.
  function put(element, html) {
    if (element.shown === html) return;
    const one = document.activeElement;
    const like = ({ tagName, name, value, dataset }) =>
      tagName === one.tagName && name === one.name && value === one.value && dataset.do === one.dataset.do;
    const place = inside(element, FOCUSABLE).indexOf(one);
    const among = inside(element, FOCUSABLE).filter(like).indexOf(one);
    const unfolded = element.querySelector("details")?.open;
    const ticked = inside(element, ":checked[type=checkbox]").map(({ value }) => value);
    element.innerHTML = element.shown = html;
    for (const fold of unfolded ? inside(element, "details") : []) {
      fold.open = true;
      for (const box of inside(fold, "[type=checkbox]")) box.checked = ticked.includes(box.value);
      for (const press of inside(fold, "form button")) press.disabled = !fold.querySelector(":checked");
    }
    if (place < 0) return;
    const there = inside(element, FOCUSABLE);
    const nearest = [there.filter(like)[among], ...there.slice(place), ...there.slice(0, place).reverse()];
    (nearest.find((other) => other && !other.disabled) ?? find(".omni-board")).focus({ preventScroll: true });
  }

  // What is being written stays as it is.
  const busy = (row) => row.contains(document.activeElement) && document.activeElement.matches("textarea");

  function putRows(place, tag, pieces, stays) {
    const rows = new Map([...place.children].map((row) => [row.dataset.id, row]));
    let after = null;
    for (const [id, html] of pieces) {
      const row = rows.get(String(id)) ?? document.createElement(tag);
      rows.delete(String(id));
      row.dataset.id = id;
      if (!stays(row)) put(row, html);
      else if (row.shown !== html) seen = ""; // to be told again when it may change
      const next = after ? after.nextSibling : place.firstChild;
      if (next !== row) place.insertBefore(row, next);
      after = row;
    }
    for (const row of rows.values()) row.remove();
  }

  // Listening

  const player = () => find(".omni-player audio, .omni-player video");

  function follow() {
    const sound = player();
    const wave = find(".omni-wave svg");
    if (!sound || !wave) return;
    const share = sound.currentTime / wave.dataset.seconds;
    wave.querySelector(".omni-playhead").setAttribute("transform", `translate(${share * wave.viewBox.baseVal.width})`);
    for (const time of box().querySelectorAll(".omni-time")) {
      const { start, end } = time.dataset;
      const now = sound.currentTime > 0 && sound.currentTime >= start && sound.currentTime < end;
      time.closest("li").classList.toggle("omni-now", now);
    }
  }

  function playFrom(seconds) {
    const sound = player();
    if (!sound) return;
    sound.currentTime = seconds;
    sound.play().catch(() => {}); // a browser that may not play has its own sign for it
    follow();
  }

  // These do not bubble.
  for (const name of ["timeupdate", "seeked"]) {
    addEventListener(name, (event) => event.target === player() && follow(), true);
  }
  function preview(event) {
    const sound = event.target;
    if (sound !== player() || sound.src.includes("as=preview")) return;
    sound.src += "?as=preview"; // in a form that every browser plays, from anywhere
  }
  addEventListener("error", preview, true);
  addEventListener("loadedmetadata", (event) => event.target.duration === Infinity && preview(event), true);

  // What is given: Gradio takes buttons away with what they did

  const more = () => document.querySelector("#omni-more");
  const given = (part) => [...document.querySelectorAll(`#omni-files ${part}`)];
  function removed(event) {
    const button = event.target.closest?.("#omni-files .label-clear-button, #omni-files .icon-button:last-child");
    if (!button || (event.key ?? "Enter") !== "Enter") return;
    const place = given(".label-clear-button").indexOf(button);
    requestAnimationFrame(() => {
      const rest = given(".label-clear-button");
      const next = [rest[Math.min(Math.max(place, 0), rest.length - 1)], more(), ...given(".upload-container")];
      if (!button.isConnected) next.find((one) => one?.checkVisibility()).focus();
    });
  }
  addEventListener("click", removed, true);
  addEventListener("keydown", removed, true);
  addEventListener("click", (event) => more()?.contains(event.target) && omni.choose());
  addEventListener("change", (event) => {
    if (given("input").includes(event.target)) document.querySelector("#omni-start").focus({ preventScroll: true });
  });

  // What a person does

  const ACTS = {
    open: ({ item: id }) => {
      item = Number(id);
      watch();
    },
    page: ({ item: number }) => {
      page = Number(number);
      watch();
    },
    table: () => {
      box().scrollIntoView({ block: "start" });
      find(`tr[data-id="${shownItem()}"] button`)?.focus({ preventScroll: true });
    },
    job: ({ job: id }) => {
      omni.openJob(id);
      find(".omni-board").focus({ preventScroll: true });
    },
    seek: ({ start }) => playFrom(Number(start)),
    delete: async () => {
      if (!(await agreed(omni.say("jobs.confirm_delete"), omni.say("jobs.delete"))) || !(await act("delete"))) return;
      close();
      document.querySelector("#omni-start").focus();
    },
    retry: ({ item: id }) => go("retry", id === undefined ? {} : { item: Number(id) }),
    stop: () => go("stop"),
    resume: () => go("resume"),
    restore: ({ number }) => go("edit", { item: shownItem(), number: Number(number), text: null }),
  };

  // Browsers answer "no" by themselves to `confirm` of pages inside other sites.
  function agreed(question, yes) {
    const dialog = document.createElement("dialog");
    dialog.id = "omni-ask";
    dialog.setAttribute("aria-label", question);
    dialog.innerHTML = `<form method="dialog"><p>${question}</p><div>
      <button class="omni-press">${omni.say("composer.cancel")}</button>
      <button class="omni-press omni-chief" value="yes">${yes}</button></div></form>`;
    document.querySelector("#omni-page").append(dialog);
    dialog.showModal();
    return new Promise((resolve) =>
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      }),
    );
  }

  const shownItem = () => Number(find(".omni-open").dataset.item);

  async function go(what, about) {
    await save();
    await act(what, about);
    watch();
  }

  addEventListener("click", (event) => {
    const button = event.target.closest?.("button[data-do]");
    if (button?.closest("#omni-job, #omni-earlier")) return void ACTS[button.dataset.do]?.(button.dataset);
    const wave = event.target.closest?.(".omni-wave svg");
    if (!wave) return;
    const { left, width } = wave.getBoundingClientRect();
    playFrom(((event.clientX - left) / width) * wave.dataset.seconds);
  });

  addEventListener("submit", (event) => {
    const form = event.target.closest?.('form[data-do="export"]');
    if (!form) return;
    event.preventDefault();
    const formats = new URLSearchParams(new FormData(form));
    if (![...formats].length) return;
    const link = document.createElement("a");
    link.href = `captions/${job}/export?${formats}`;
    link.download = "";
    foldExports();
    save().then(() => link.click());
  });

  function foldExports() {
    const fold = box()?.querySelector(".omni-exports[open]");
    if (!fold) return;
    if (fold.contains(document.activeElement)) fold.querySelector("summary").focus();
    fold.open = false;
  }
  addEventListener("click", (event) => event.target.closest?.(".omni-exports") || foldExports());
  addEventListener("keydown", (event) => event.key === "Escape" && foldExports());

  addEventListener("change", (event) => {
    const form = event.target.closest?.(".omni-exports form");
    if (form) form.querySelector("button").disabled = !form.querySelector(":checked");
    const choice = event.target.closest?.(".omni-samples input");
    if (!choice) return;
    const about = { item: shownItem(), number: Number(choice.dataset.number), sample: Number(choice.value) };
    unsaved.delete(`${job}:${about.item}:${about.number}`);
    go("choose", about);
  });

  // Captions are saved while they are written.

  let saving = 0;

  addEventListener("input", (event) => {
    const area = event.target.closest?.("#omni-job textarea");
    if (!area) return;
    const about = { item: shownItem(), number: Number(area.dataset.number), text: area.value };
    unsaved.set(`${job}:${about.item}:${about.number}`, { of: job, about });
    clearTimeout(saving);
    saving = setTimeout(save, SAVE);
  });
  addEventListener("focusout", (event) => event.target.matches?.("#omni-job textarea") && save().then(watch));

  async function save() {
    clearTimeout(saving);
    for (const [key, edit] of [...unsaved]) {
      const body = JSON.stringify(edit.about);
      const reply = await ask(`${edit.of}/edit?lang=${omni.language}`, { method: "POST", body, keepalive: true });
      if (reply && reply.status < 500) {
        if (unsaved.get(key) === edit) unsaved.delete(key);
        if (reply.ok) omni.announce(omni.say("jobs.saved"));
        else omni.tell((await reply.json().catch(() => ({}))).error ?? omni.say("page.failed"));
      } else {
        omni.tell(omni.say("jobs.not_saved"));
        saving = setTimeout(save, AGAIN);
        return;
      }
    }
    if (document.querySelector("#omni-refused")?.textContent === omni.say("jobs.not_saved")) omni.tell("");
  }
  addEventListener("pagehide", () => unsaved.size && save());
  addEventListener("visibilitychange", () => !document.hidden && active && watch());

  addEventListener(
    "pointerdown",
    (event) => (pressed = event.button === 0 && Boolean(box()?.contains(event.target))),
    true,
  );
  // A menu or another window may take the pointer and never give its end.
  function released() {
    if (pressed) setTimeout(watch); // after the click
    pressed = false;
  }
  for (const name of ["pointerup", "pointercancel", "contextmenu"]) addEventListener(name, released, true);
  addEventListener("blur", (event) => event.target === window && released());

  // A page that comes back shows its last job.
  omni.once(() => {
    if (!box()) return false;
    document.querySelector("#omni-give").append(omni.uploadLine());
    const [latest] = jobs();
    if (latest) open(latest);
    return true;
  });
})();
