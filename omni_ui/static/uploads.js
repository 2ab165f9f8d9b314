// The way of files to the server. Gradio uploads; this shows how far it is, keeps what fails, and lets what is sent
// wait for its files and its recording.
(() => {
  const SEND = ".submit-button, #omni-start";
  const NO_PROGRESS = 'data: {"msg": "done"}\n\n'; // Gradio need not ask, nor hold a connection
  const place = () => document.querySelector("#omni-composer, #omni-give");
  const find = (part) => place().querySelector(part);
  const recorder = () => find(".minimal-audio-recorder, #omni-record.omni-recording");
  const waiting = []; // uploads that have not ended: {files, request, share, cancelled}, the first is on its way
  let last = Promise.resolve();
  let lost = 0; // uploads that failed or were called off
  let held = false; // a message that waits

  omni.RECORDING = "audio.wav"; // how Gradio calls every recording

  const address = (resource) => new URL(resource, document.baseURI).pathname;
  const plain = window.fetch;

  // Uploads go one after the other, so that files stay in order. One that fails gives Gradio no files rather than an
  // error, which it would write on the console and into a box of its own.
  window.fetch = (resource, options) => {
    if (address(resource).endsWith("/upload_progress")) return Promise.resolve(new Response(NO_PROGRESS));
    if (!(options?.body instanceof FormData && address(resource).endsWith("/upload"))) return plain(resource, options);
    const given = options.body.getAll("files");
    // Gradio gives none to its recorders, nor to folders.
    const recorded = !String(resource).includes("upload_id=") && !given.some(omni.below);
    if (recorded && omni.discarded?.()) return Promise.resolve(new Response("[]"));
    const files = given.map((file) => (recorded ? renamed(file) : file));
    const upload = { files, request: new XMLHttpRequest(), share: 0, cancelled: false };
    waiting.push(upload);
    show();
    const answer = last.then(() => send(upload, resource, options.headers));
    last = answer.then((answer) => end(upload, answer));
    return answer.then((answer) => answer ?? new Response("[]"));
  };

  // All recordings have the same name in Gradio.
  const renamed = (file) => new File([file], omni.dated("sound", "wav"), { type: file.type });

  // The server's answer, undefined when there is none that helps. `fetch` could not tell how far it is.
  function send(upload, resource, headers) {
    const { request, files } = upload;
    const body = new FormData();
    for (const file of files) body.append("files", file);
    return new Promise((resolve) => {
      if (upload.cancelled) return resolve();
      request.upload.onprogress = ({ loaded, total }) => {
        upload.share = loaded / total;
        show();
      };
      request.onload = () => resolve(request.status === 200 ? new Response(request.responseText) : undefined);
      request.onerror = request.onabort = () => resolve();
      request.open("POST", resource);
      for (const [name, value] of new Headers(headers)) request.setRequestHeader(name, value);
      request.send(body);
    });
  }

  // What failed can be uploaded again by a click.
  function end({ files, request, cancelled }, answer) {
    waiting.shift();
    omni.coming -= files.length;
    show();
    if (answer) return;
    lost += 1;
    find(".minimal-audio-recorder .stop-button")?.click(); // it would wait for its recording for ever
    omni.folderTaken();
    if (cancelled) return;
    const key = request.status === 413 ? "composer.upload_too_large" : "composer.upload_failed";
    omni.offerAgain(omni.say(key, { name: inShort(files) }), files);
  }

  const inShort = (files) =>
    files.length > 5 ? omni.say("composer.many", { count: files.length }) : omni.named(files);

  // One line over the words: what is on its way, how far, and a way to call it off.
  function show() {
    const [words, bar, cancel] = find(".omni-uploading").children;
    const upload = waiting[0];
    const name = inShort(waiting.flatMap(({ files }) => files));
    const later = find("#omni-start") ? "jobs.begins_later" : "composer.sends_later";
    const sentence = held ? omni.say(later) : upload ? omni.say("composer.uploading", { name }) : "";
    if (words.textContent !== sentence) words.textContent = sentence; // read out once, not at every step
    bar.hidden = !upload;
    cancel.hidden = !sentence;
    if (upload) bar.value = upload.share;
  }

  function callOff() {
    held = false;
    for (const upload of waiting) {
      upload.cancelled = true;
      upload.request.abort();
    }
    show();
    find(".omni-attach-button, #omni-folder").focus();
  }

  // photo-142501.jpg for what was made at 14:25:01.
  omni.dated = (kind, type) => `${kind}-${new Date().toTimeString().slice(0, 8).replaceAll(":", "")}.${type}`;

  omni.uploadLine = () => {
    const line = document.createElement("div");
    line.className = "omni-uploading";
    const words = document.createElement("span");
    words.role = "status";
    const bar = document.createElement("progress");
    bar.ariaLabel = omni.say("composer.progress");
    const cancel = document.createElement("button");
    cancel.type = "button";
    cancel.textContent = omni.say("composer.cancel");
    cancel.addEventListener("click", callOff);
    bar.hidden = cancel.hidden = true;
    line.append(words, bar, cancel);
    return line;
  };

  const until = (condition) =>
    new Promise((resolve) => {
      const watch = new MutationObserver(look);
      function look() {
        if (!condition()) return;
        watch.disconnect();
        resolve();
      }
      watch.observe(place(), { childList: true, subtree: true });
      look();
    });

  // Gradio would send without a recording that still runs, and without files that fail meanwhile.
  async function hold() {
    const before = lost;
    held = true;
    show();
    find(".minimal-audio-recorder .stop-button, #omni-record.omni-recording")?.click();
    await until(() => lost !== before || !(recorder() || waiting.length || omni.coming > 0));
    await omni.folderTaking;
    await until(() => !find(".uploading")); // else Gradio does not have them yet
    const go = held && lost === before;
    held = false;
    show();
    if (go) find(SEND)?.click();
  }

  function guard(event) {
    if (!(held || recorder() || waiting.length || omni.coming > 0 || omni.folderTaking)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!held) hold();
  }

  const within = (event, part) => place()?.contains(event.target) && event.target.closest(part);
  addEventListener("click", (event) => within(event, SEND) && guard(event), true);
  addEventListener(
    "keypress",
    (event) => event.key === "Enter" && !event.shiftKey && within(event, "textarea") && guard(event),
    true,
  );
})();
