// Keeps the page up to date: the server sends it whenever it has changed, and what differs is put in its place.
// Without this script the pages are whole, too; they only stand still.

const SAID_SECONDS = 15; // a screen reader is told of changes no more often
const AGAIN_SECONDS = 10; // after the server has refused a connection

const main = document.getElementById("main");
const said = document.getElementById("said");
const connection = document.getElementById("connection");
let source = null;
let paused = false;
let lastSaid = 0;
let again = 0;

/** Make the children of `old` like those of `next`. Elements that stay keep the focus, and what is folded out. */
function update(old, next) {
  const before = [...old.childNodes];
  const after = [...next.childNodes];
  after.forEach((node, place) => {
    const there = before[place];
    if (!there) {
      old.append(document.importNode(node, true));
    } else if (there.nodeType !== node.nodeType || there.nodeName !== node.nodeName) {
      there.replaceWith(document.importNode(node, true));
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      updateAttributes(there, node);
      update(there, node);
    } else if (there.nodeValue !== node.nodeValue) {
      there.nodeValue = node.nodeValue;
    }
  });
  before.slice(after.length).forEach((node) => node.remove());
}

function updateAttributes(old, next) {
  const kept = ["INPUT", "SELECT", "OPTION", "DETAILS"].includes(old.nodeName); // theirs is what a person has done
  for (const { name, value } of [...next.attributes]) {
    if (!kept && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!kept && !next.hasAttribute(name)) old.removeAttribute(name);
  }
}

function show(event) {
  const page = JSON.parse(event.data);
  const next = new DOMParser().parseFromString(page.html, "text/html").body;
  update(main, next);
  document.title = `${page.title} · bulksubmit`;
  if (page.said && page.said !== said.textContent && Date.now() - lastSaid >= SAID_SECONDS * 1000) {
    lastSaid = Date.now();
    said.textContent = page.said;
  }
}

function tell(words, state) {
  status.textContent = words;
  connection.dataset.state = state;
}

function listen() {
  clearTimeout(again);
  if (source || paused || document.hidden) return;
  source = new EventSource(location.href);
  source.addEventListener("open", () => tell("Live", "live"));
  source.addEventListener("page", show);
  source.addEventListener("error", () => {
    tell("No connection", "lost");
    if (source && source.readyState === EventSource.CLOSED) {
      stop();
      again = setTimeout(listen, AGAIN_SECONDS * 1000);
    }
  });
}

function stop() {
  if (source) source.close();
  source = null;
}

const status = document.createElement("span");
const button = document.createElement("button");
button.type = "button";
button.textContent = "Pause";
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Go on" : "Pause";
  if (paused) {
    stop();
    tell("Paused", "paused");
  } else {
    tell("Connecting", "lost");
    listen();
  }
});
connection.append(status, " ", button);

document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", listen);
lastSaid = Date.now();
tell("Connecting", "lost");
listen();
