// What a page keeps by itself: which conversation is its own (over a reload, not over a new tab), and what stands in
// the composer while the server answers.
(() => {
  const PLACE = "omni-session";

  Object.defineProperty(omni, "session", {
    get() {
      try {
        return sessionStorage.getItem(PLACE) ?? "";
      } catch {
        return ""; // storage is closed to pages inside other sites: a reload begins anew there
      }
    },
    set(id) {
      try {
        sessionStorage.setItem(PLACE, id ?? "");
      } catch {
        // see above
      }
    },
  });

  // The composer without what was sent. What was written meanwhile stays.
  omni.rest = (value, sent) => {
    if (!sent) return value;
    const { text, files } = JSON.parse(sent);
    const typed = value?.text ?? "";
    return {
      text: typed.startsWith(text) ? typed.slice(text.length).trimStart() : typed,
      files: (value?.files ?? []).filter((file) => !files.includes(file.path)),
    };
  };
})();
