// What the live tail needs beside htmx: nothing moves under a reader's eyes, and the list does not grow without end.
"use strict";

{
  const list = document.getElementById("arrivals");
  const mouse = matchMedia("(hover: hover)");

  // Pointing at the list, being in it with the keyboard, marking text in it, or having scrolled into it: somebody reads.
  const reads = () =>
    (mouse.matches && list.matches(":hover"))
    || list.contains(document.activeElement)
    || (!getSelection().isCollapsed && list.contains(getSelection().anchorNode))
    || list.getBoundingClientRect().top < 0;

  function show(held) {
    const [live, badge] = [document.getElementById("live"), document.getElementById("held")];
    if (!badge) return;
    live.hidden = held;
    badge.hidden = !held;
  }

  const polls = event => event.detail.elt?.id === "poller" || event.detail.requestConfig?.elt?.id === "poller";

  document.addEventListener("htmx:beforeRequest", event => {
    if (!polls(event)) return;
    const held = reads();
    show(held);
    if (held) event.preventDefault();
  });

  // An answer that comes while somebody has begun to read is dropped: the cursor stays where it was, and the next one brings it all.
  document.addEventListener("htmx:beforeSwap", event => {
    if (event.detail.requestConfig?.elt?.id === "poller" && (reads() || !event.detail.requestConfig.elt.isConnected)) event.detail.shouldSwap = false;
  });

  document.addEventListener("htmx:oobAfterSwap", () => {
    while (list.children.length > Number(list.dataset.most)) list.lastElementChild.remove();
  });
}
