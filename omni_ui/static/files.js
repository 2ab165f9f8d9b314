// How files come into the page: by button, paste and drop, from camera and recorder. All ways end in Gradio's own file
// inputs; where there is one for folders, folders are taken. The server puts `FILE_LIMIT` ({bytes, text}) in front.
(() => {
  const place = () => document.querySelector("#omni-composer, #omni-give");
  const fileInput = () => place().querySelector("input[type=file]:not([webkitdirectory])");
  const folderInput = () => place().querySelector("input[type=file][webkitdirectory]");
  const named = (files) => new Intl.ListFormat(omni.language).format(files.map((file) => file.name));
  const dropped = new WeakMap(); // file → its name below the folder that was dropped
  const below = (file) => dropped.get(file) || file.webkitRelativePath;
  let folder = []; // what the files of one are called: Gradio keeps no names below folders
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
    const find = files.some(below) && folderInput() ? folderInput : fileInput;
    omni.coming += basket.files.length;
    omni.once(() => {
      const input = find(); // Gradio takes it away while it uploads
      if (!input) return false;
      omni.coming -= basket.files.length;
      handing = true;
      input.files = basket.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      handing = false;
      return true;
    });
  }

  function choose() {
    const input = fileInput();
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
      if (event.target.type !== "file" || !place()?.contains(event.target)) return;
      const files = [...event.target.files];
      if (!handing && files.some((file) => file.size > FILE_LIMIT.bytes)) return take(event, files);
      omni.coming += files.length;
      if (event.target !== folderInput() || !files.length) return;
      folder = files.map((file) => below(file) || file.name);
      omni.folderTaking ??= new Promise((resolve) => (omni.folderTaken = resolve));
      omni.folderTaking.then(() => (omni.folderTaking = null));
    },
    true,
  );

  addEventListener(
    "paste",
    (event) => {
      const { files, types } = event.clipboardData;
      const elsewhere = event.target.closest?.("input, textarea, [contenteditable]");
      if (!files.length || (elsewhere && !place().contains(elsewhere))) return;
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
      hint.textContent = omni.say(folderInput() ? "jobs.drop" : "composer.drop");
      document.querySelector("#omni-write, #omni-give").append(hint);
    }
    if (hint) hint.hidden = !on;
  }

  // All files of what was dropped, in folders below folders.
  async function walk(entry, path) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      dropped.set(file, path + file.name);
      return [file];
    }
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
      if (!some.length) return found;
      for (const one of some) found.push(...(await walk(one, `${path}${entry.name}/`)));
    }
  }

  function drop(event) {
    hover(false);
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const entries = items.map((item) => item.webkitGetAsEntry?.()); // these are there only now, as are the files
    const files = items.map((item) => item.getAsFile());
    const folder = entries.find((entry) => entry?.isDirectory);
    if (!folder || !folderInput()) {
      if (folder) omni.tell(omni.say("composer.folder", { name: folder.name }));
      return take(event, files.filter((_, n) => !entries[n]?.isDirectory));
    }
    take(event, []); // walking takes its time
    Promise.all(entries.map((entry) => walk(entry, "")))
      .then((found) => attach(found.flat()))
      .catch((problem) => omni.tell(omni.say("page.failed"), problem.message));
  }

  // Everywhere on the page, so that a drop beside the composer does not leave it.
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(
      name,
      (event) => {
        if (!event.dataTransfer?.types.includes("Files") || !place()) return;
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
    if (!offers && place()?.contains(event.target)) omni.tell("");
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
      place().querySelector(".omni-attach-button, #omni-folder").focus();
      attach(files);
    });
    document.querySelector("#omni-refused").append(" ", button);
  }

  omni.folderNames = () => JSON.stringify(folder);
  omni.coming = 0; // how many files are given and not uploaded
  omni.folderTaking = null; // until the files of a folder stand among the others, or are lost
  omni.folderTaken = () => {};
  Object.assign(omni, { attach, below, choose, named, offerAgain });
})();
