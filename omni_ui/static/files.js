// How files come into the composer: by button, paste and drop, from camera and recorder. All ways end in Gradio's own
// file input. `FILE_LIMIT` ({bytes, text}) is put in front by the server.
(() => {
  const composer = () => document.querySelector("#omni-composer");
  const named = (files) => new Intl.ListFormat(omni.language).format(files.map((file) => file.name));
  let handing = false;

  // Hands files to Gradio as if they had been chosen; those beyond the limit are named and left out.
  function attach(files) {
    const large = files.filter((file) => file.size > FILE_LIMIT.bytes);
    if (large.length) {
      const key = large.length > 1 ? "composer.too_large_all" : "composer.too_large";
      omni.tell(omni.say(key, { name: named(large), limit: FILE_LIMIT.text }));
    }
    const basket = new DataTransfer();
    for (const file of files) if (!large.includes(file)) basket.items.add(file);
    if (!basket.files.length) return;
    const input = composer().querySelector("input[type=file]");
    handing = true;
    input.files = basket.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    handing = false;
  }

  function choose() {
    const input = composer().querySelector("input[type=file]");
    input.value = "";
    input.click();
  }

  function take(event, files) {
    event.preventDefault();
    event.stopImmediatePropagation();
    attach(files);
  }

  addEventListener(
    "change",
    (event) => {
      if (handing || event.target.type !== "file" || !composer()?.contains(event.target)) return;
      const files = [...event.target.files];
      if (files.some((file) => file.size > FILE_LIMIT.bytes)) take(event, files);
    },
    true,
  );

  addEventListener(
    "paste",
    (event) => {
      const { files, types } = event.clipboardData;
      const elsewhere = event.target.closest?.("input, textarea, [contenteditable]");
      if (!files.length || (elsewhere && !composer().contains(elsewhere))) return;
      // Office programs add a picture of the copied text; the text is meant.
      if (types.includes("text/html") && event.clipboardData.getData("text/plain").trim()) {
        event.stopImmediatePropagation(); // Gradio would take the picture too
        return;
      }
      take(event, [...files]);
    },
    true,
  );

  // The hint while files hang over the page.
  function hover(on) {
    let hint = document.querySelector("#omni-drop");
    if (!hint && on) {
      hint = document.createElement("div");
      hint.id = "omni-drop";
      hint.textContent = omni.say("composer.drop");
      document.querySelector("#omni-write").append(hint);
    }
    if (hint) hint.hidden = !on;
  }

  function drop(event) {
    hover(false);
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const folder = items.map((item) => item.webkitGetAsEntry?.()).find((entry) => entry?.isDirectory);
    if (folder) omni.tell(omni.say("composer.folder", { name: folder.name }));
    const isFile = (item) => !item.webkitGetAsEntry?.()?.isDirectory;
    take(event, items.filter(isFile).map((item) => item.getAsFile()));
  }

  // Everywhere on the page, so that a drop beside the composer does not leave it.
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(
      name,
      (event) => {
        if (!event.dataTransfer?.types.includes("Files") || !composer()) return;
        if (name === "drop") return drop(event);
        event.preventDefault();
        event.stopImmediatePropagation();
        if (name === "dragleave") return event.relatedTarget || hover(false);
        event.dataTransfer.dropEffect = "copy";
        hover(true);
      },
      true,
    );
  }

  // A sentence about what was refused goes away with the next try; one that offers to try again stays.
  const clear = (event) => {
    const offers = document.querySelector("#omni-refused button");
    if (!offers && composer()?.contains(event.target)) omni.tell("");
  };
  addEventListener("click", clear, true);
  addEventListener("keydown", clear, true);

  // Says that files could not be taken in, and does it once more by a click.
  function offerAgain(sentence, files) {
    omni.tell(sentence);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = omni.say("composer.again");
    button.addEventListener("click", () => {
      omni.tell("");
      composer().querySelector(".omni-attach-button").focus();
      attach(files);
    });
    document.querySelector("#omni-refused").append(" ", button);
  }

  Object.assign(omni, { attach, choose, named, offerAgain });
})();
