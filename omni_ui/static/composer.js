// Mends Gradio's composer: names in the reader's language, buttons that stay where they are, previews with names,
// and a recorder that says why it cannot record. Gradio makes its nodes anew as it likes: everything here is put right
// after each change.
(() => {
  const composer = () => document.querySelector("#omni-composer");
  const PAPERCLIP = '<path d="m21 11-9 9a6 6 0 0 1-8.5-8.5l9-9a4 4 0 0 1 5.7 5.7l-9 9a2 2 0 0 1-2.9-2.9l8.3-8.2"/>';
  const CAMERA =
    '<path d="M4 7h3l2-3h6l2 3h3a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2V9a2 2 0 0 1 2-2z"/><circle cx="12" cy="13" r="4"/>';
  const CROSS = '<path d="M18 6 6 18M6 6l12 12"/>';
  const NAMES = {
    ".full-container": "composer.group",
    textarea: "composer.message",
    "input[type=file]": "composer.attach",
    ".thumbnails": "composer.files",
    ".omni-attach-button": "composer.attach",
    ".submit-button": "composer.send",
    ".input-row .stop-button": "composer.stop",
    ".minimal-audio-recorder": "composer.recorder",
    ".minimal-audio-recorder .stop-button": "composer.stop_recording",
    ".minimal-audio-player": "composer.recording",
    ".confirm-button": "composer.keep_recording",
    ".cancel-button, .omni-discard-button": "composer.discard_recording",
    ".record-button": "composer.record",
    ".device-select-large": "composer.device",
  };
  let files = []; // what Gradio's value says is attached
  const unseen = new Set(); // films that the browser cannot show
  let shape = ""; // of the previews when it was asked last
  let asking = false; // the browser asks its reader for the microphone
  let sound = null; // the microphone's stream, from the question to the end of the recording
  let takeBack = null; // when a recorder ends before it has taken the stream
  let recorder = null; // Gradio's, while it records
  let next = null; // the button of the recorder that takes the recording further
  let stepped = false; // a reader has pressed a button of the recorder, and done nothing since
  let discarded = false; // the recording that ends now is not wanted

  function put(node, name, value) {
    if (node && node.getAttribute(name) !== value) node.setAttribute(name, value);
  }

  function call(node, name, title = name) {
    put(node, "aria-label", name);
    if (node?.matches("button")) put(node, "title", title);
  }

  function button(name, picture, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `omni-${name}-button`;
    button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${picture}</svg>`;
    button.addEventListener("click", act);
    return button;
  }

  // Gradio's own button for files moves when there are some, and takes the focus with it.
  function addButtons(root) {
    const row = root.querySelector(".input-row");
    if (!row.querySelector(".omni-attach-button")) {
      const camera = () => omni.openCamera();
      row.querySelector(".textarea-wrapper").after(
        button("attach", PAPERCLIP, omni.choose),
        button("camera", CAMERA, camera),
      );
    }
    if (!root.querySelector(".omni-uploading")) row.parentElement.append(omni.uploadLine());
    const recorder = root.querySelector(".recording-content:has(.minimal-audio-recorder)");
    if (recorder && !recorder.querySelector(".omni-discard-button")) {
      recorder.append(button("discard", CROSS, () => root.querySelector(".microphone-button").click()));
    }
  }

  // A control that the checkpoint cannot serve says why, by pointer, to screen readers and when it is pressed.
  function forbid(node, reason, name) {
    if (!node) return;
    put(node, "aria-disabled", String(Boolean(reason)));
    call(node, name, reason ?? name);
  }

  // {type: reason} of what the checkpoint does not take.
  const missing = () => JSON.parse(document.querySelector(".omni-ready")?.dataset.missing ?? "{}");

  function nameAll(root) {
    for (const [part, key] of Object.entries(NAMES)) {
      for (const node of root.querySelectorAll(part)) call(node, omni.say(key));
    }
    const play = root.querySelector(".play-btn");
    call(play, omni.say(play?.querySelector("rect") ? "composer.pause" : "composer.play"));
    for (const node of root.querySelectorAll(".minimal-audio-recorder, .minimal-audio-player")) put(node, "role", "group");
    put(root.querySelector(".thumbnails"), "role", "list");
    const { image, audio, video } = missing();
    forbid(root.querySelector(".microphone-button"), audio, omni.say("composer.record"));
    forbid(root.querySelector(".omni-camera-button"), video && image, omni.say("composer.camera"));
  }

  function preview(item, { url, mime_type: type }) {
    const old = item.querySelector("video");
    const source = `${url}#t=0.1`;
    if (!type?.startsWith("video") || unseen.has(source)) return old?.remove();
    if (old?.getAttribute("src") === source) return;
    const film = document.createElement("video");
    Object.assign(film, { muted: true, playsInline: true, preload: "metadata", src: source });
    film.addEventListener("error", () => {
      unseen.add(source); // Gradio's picture of a film takes its place
      film.remove();
    });
    old?.remove();
    item.prepend(film);
  }

  function label(wrapper, file) {
    const item = wrapper.firstElementChild;
    const known = file.orig_name !== omni.RECORDING && file.orig_name;
    const name = known || file.path.split("/").at(-1);
    const remove = item.querySelector(".delete-button");
    let words = item.querySelector(".omni-name");
    if (!words) {
      words = document.createElement("span");
      words.className = "omni-name";
      remove.before(words);
    }
    if (words.textContent !== name) words.textContent = name;
    put(wrapper, "aria-label", name);
    put(wrapper, "title", name);
    call(remove, omni.say("composer.remove", { name }));
    preview(item, file);
  }

  // The names stand in Gradio's value only: a hidden button asks for it, and `omni.attached` is the answer.
  function namePreviews(root) {
    const wrappers = [...root.querySelectorAll(".thumbnail-wrapper")];
    const seen = wrappers.map((wrapper) => wrapper.querySelector("img")?.src ?? wrapper.querySelector("svg")?.outerHTML);
    const now = seen.join("\n");
    if (now !== shape) {
      if (now.length > shape.length) wrappers.at(-1)?.scrollIntoView({ block: "nearest", inline: "end" });
      shape = now;
      document.querySelector("#omni-names")?.click();
    }
    if (wrappers.length === files.length) wrappers.forEach((wrapper, n) => label(wrapper, files[n]));
  }

  function mend() {
    const root = composer();
    addButtons(root);
    nameAll(root);
    namePreviews(root);
    startAtOnce(root);
    followRecorder(root);
    keepFocus(root);
  }

  function attached(value) {
    files = value.files;
    mend();
  }

  // The next preview's button takes the place of the pressed one; after the last, the focus would be lost.
  function removed(event) {
    const all = [...composer().querySelectorAll(".delete-button")];
    const place = all.indexOf(event.target.closest(".delete-button"));
    files = files.filter((_, n) => n !== place);
    requestAnimationFrame(() => {
      const rest = composer().querySelectorAll(".delete-button");
      (rest[Math.min(place, rest.length - 1)] ?? composer().querySelector(".omni-attach-button")).focus();
    });
  }

  // Gradio's recorder fails with a line on the console and no word to the reader: so it is asked for here, and handed
  // over, as some browsers would ask their reader twice.
  async function askForMicrophone(event) {
    const { audio: reason } = missing();
    if (sound || (!reason && composer().querySelector(".recording-overlay"))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (reason) return omni.tell(reason);
    if (asking) return;
    asking = true;
    try {
      sound = await omni.capture({ audio: true });
    } catch (problem) {
      return omni.tell(omni.withoutMicrophone(problem));
    } finally {
      asking = false;
    }
    handOver(sound);
    composer().querySelector(".microphone-button").click();
  }

  // The next that asks for a microphone, Gradio's recorder, gets this stream.
  function handOver(stream) {
    const devices = navigator.mediaDevices;
    const ask = devices.getUserMedia;
    takeBack = () => {
      devices.getUserMedia = ask;
      takeBack = null;
    };
    devices.getUserMedia = async () => {
      takeBack?.();
      return stream;
    };
  }

  // The microphone is let go with the recorder, whatever became of it. What a recorder without a result still
  // uploads is not wanted: Gradio would add it to the next message.
  function followRecorder(root) {
    const now = root.querySelector(".minimal-audio-recorder");
    if (now === recorder) return;
    discarded = !now && !root.querySelector(".minimal-audio-player");
    if (!now) {
      takeBack?.();
      for (const track of sound?.getTracks() ?? []) track.stop();
      sound = null;
    }
    recorder = now;
  }

  // With several microphones Gradio asks which one. The first is the one that the system or the reader has chosen.
  function startAtOnce(root) {
    const overlay = root.querySelector(".recording-overlay:not([data-begun])");
    const record = overlay?.querySelector(".record-button");
    if (!record) return;
    overlay.dataset.begun = "yes"; // only once: it comes back when the microphone fails
    record.click();
  }

  // Each step of a recording takes away the button that led to it.
  function keepFocus(root) {
    const button = root.querySelector(".minimal-audio-recorder .stop-button, .confirm-button");
    if (button === next) return;
    next = button;
    if (stepped) (button ?? root.querySelector(".microphone-button")).focus();
  }

  // Sends what was put into the composer just now, once it is there.
  omni.send = () => requestAnimationFrame(() => composer()?.querySelector(".submit-button")?.click());

  // Whether what is being uploaded was discarded; asked once for each.
  omni.discarded = () => {
    const unwanted = discarded;
    discarded = false;
    return unwanted;
  };

  // Gradio's player breaks its loading off when it goes away, and lets that fall on the console.
  addEventListener("unhandledrejection", (event) => event.reason?.name === "AbortError" && event.preventDefault());

  const within = (event, part) => composer()?.contains(event.target) && event.target.closest(part);
  for (const other of ["keydown", "pointerdown"]) addEventListener(other, () => (stepped = false), true);
  addEventListener(
    "click",
    (event) => (stepped ||= event.isTrusted && Boolean(within(event, ".microphone-button, .recording-overlay button"))),
    true,
  );
  addEventListener("click", (event) => within(event, ".microphone-button") && askForMicrophone(event), true);
  addEventListener("click", (event) => within(event, ".delete-button") && removed(event), true);

  omni.attached = attached;
  omni.missing = missing;
  omni.once(() => {
    const status = document.querySelector("#omni-status");
    if (!status || !composer()?.querySelector(".input-row")) return false;
    const watch = new MutationObserver(mend);
    const news = { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-label", "src"] };
    watch.observe(composer(), news);
    watch.observe(status, { childList: true, subtree: true, attributeFilter: ["data-missing"] });
    mend();
    return true;
  });
})();
