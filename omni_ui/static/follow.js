// Keeps the newest words in sight while somebody reads along.
omni.once(() => {
  const NEAR = 160; // pixels from the end that count as reading along
  const column = document.querySelector("#omni-talk");
  if (!column) return false;
  const page = document.scrollingElement;
  let height = page.scrollHeight;
  new ResizeObserver(() => {
    const wasNear = height - page.scrollTop - innerHeight < NEAR;
    height = page.scrollHeight;
    if (wasNear) page.scrollTo({ top: height });
  }).observe(column);
  return true;
});
