// What a page keeps by itself over a reload (not for a new tab): which conversation is its own, and what stands in the
// composer, which must not be lost when the server goes away and comes back.
(() => {
  function keep(place, text) {
    try {
      sessionStorage.setItem(place, text);
    } catch {
      // storage is closed to pages inside other sites: a reload begins anew there
    }
  }

  function kept(place) {
    try {
      return sessionStorage.getItem(place) ?? "";
    } catch {
      return ""; // see above
    }
  }

  Object.defineProperty(omni, "session", {
    get: () => kept("omni-session"),
    set: (id) => keep("omni-session", id ?? ""),
  });

  let isBack = false; // an empty composer that is only just there must not overwrite what it held before

  // What the composer holds now.
  omni.draft = (value) => {
    if (isBack) keep("omni-draft", value?.text || value?.files?.length ? JSON.stringify(value) : "");
  };

  const isThere = (file) =>
    fetch(file.url, { method: "HEAD" }).then(
      (reply) => reply.ok,
      () => false,
    );

  // The composer with what it held before the reload, without files that the server does not have any more. With
  // nothing to bring back it is left alone: its value of now would wipe what is typed until this is carried out.
  omni.kept = async (value) => {
    isBack = true;
    if (value?.text || value?.files?.length || !kept("omni-draft")) return { __type__: "update" };
    const { text, files } = JSON.parse(kept("omni-draft"));
    const there = await Promise.all(files.map(isThere));
    return { text, files: files.filter((_, index) => there[index]) };
  };

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
