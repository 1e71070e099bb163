// Owns what every part of the page needs: elements, numbers in words, what the person is told
// (notices, and the live region for those who listen), and texts of models, shown as text.
'use strict';

const $ = (id) => document.getElementById(id);

// make('button', {type: 'button', click: f}, 'Copy'): an element; functions are listeners.
function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') e.addEventListener(name, value);
    else if (value === true) e.setAttribute(name, '');
    else if (value !== false && value != null) e.setAttribute(name, value);
  }
  e.append(...children);
  return e;
}

// One of the drawings at the head of the page.
function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(ns, 'use'));
  svg.firstChild.setAttribute('href', '#i-' + name);
  return svg;
}

function iconButton(name, label, click) {
  return make('button', {class: 'icon small', type: 'button', 'aria-label': label, title: label,
    click}, icon(name));
}

const words = {
  // 2617152: 2.6 MB
  bytes(n) {
    if (!(n >= 0) || n === null) return '–';
    const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
    let k = 0;
    for (; n >= 999.5 && k < units.length - 1; k++) n /= 1000;
    return (k && n < 9.95 ? n.toFixed(1) : Math.round(n)) + ' ' + units[k];
  },
  bits(x) { return x > 0 ? x.toFixed(x < 9.995 ? 2 : 1) + ' bits' : '–'; },
  rate(x) { return x > 0 ? (x < 9.95 ? x.toFixed(1) : Math.round(x)) + ' tok/s' : '–'; },
  count(n, one) { return n + ' ' + one + (n === 1 ? '' : 's'); },
};

// A text of the person's within one of the page's: its letters may run from right to left, and
// what stands around it keeps its own way.
const isolate = (text) => '\u2068' + text + '\u2069';

// ---- telling ----

// For screen readers alone.  A new element each time, so that the same words are said again.
function say(text) {
  $('live').replaceChildren(make('p', {}, text));
}

let noticeTimer = 0;

function dismiss() {
  clearTimeout(noticeTimer);
  $('notice').replaceChildren();
}

// A line above everything else.  With something to do about it, it stays until it is closed.
function notice(text, label, action) {
  dismiss();
  const line = make('div', {class: 'notice'}, make('span', {}, text));
  if (action) {
    line.append(make('button', {class: 'quiet', type: 'button',
      click() { dismiss(); action(); }}, label));
  }
  line.append(iconButton('close', 'Close this message', dismiss));
  $('notice').append(line);
  if (!action) noticeTimer = setTimeout(dismiss, 8000);
}

// ---- texts of models ----

// [{code, text}]: what stands between fences of ``` or ~~~, and what stands outside.  An open
// fence reaches to the end, as it does while the answer is being written.
function splitFences(text) {
  const parts = [];
  let fence = null, lines = [];
  const close = () => {
    const joined = lines.join('\n');
    if (fence !== null || joined.trim()) {
      parts.push({code: fence !== null,
        text: fence !== null ? joined : joined.replace(/^\n+|\s+$/g, '')});
    }
    lines = [];
  };
  for (const line of text.split('\n')) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line);
    if (mark && fence === null) {
      close();
      fence = mark[1];
    } else if (mark && mark[1].startsWith(fence) && !line.trim().slice(mark[1].length)) {
      close();
      fence = null;
    } else {
      lines.push(line);
    }
  }
  close();
  return parts;
}

// A text that has grown only gains an end: what a person has selected stays selected.
function setText(e, text) {
  const node = e.firstChild;
  if (node && text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else e.textContent = text;
}

// Show a model's text in `box`, whose children may stem from a shorter one.
function renderText(box, text) {
  const parts = splitFences(text);
  parts.forEach((part, k) => {
    const tag = part.code ? 'PRE' : 'P';
    let e = box.children[k];
    if (!e || e.tagName !== tag) {
      const fresh = make(tag);
      if (part.code) {
        fresh.append(make('code'));
        fresh.tabIndex = 0; // it may be wider than the page, and is scrolled by keys
      }
      if (e) e.replaceWith(fresh);
      else box.append(fresh);
      e = fresh;
    }
    setText(part.code ? e.firstChild : e, part.text);
  });
  while (box.children.length > parts.length) box.lastChild.remove();
}

// ---- small tools ----

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // pages that came over plain HTTP from another machine have no clipboard
    const box = make('textarea', {class: 'unseen', 'aria-hidden': 'true'});
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand('copy');
    box.remove();
  }
  notice('Copied.');
}

// Give `text` to the person as a file.
function saveFile(name, text) {
  const url = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  make('a', {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// As high as its text, up to what its style allows.
function fitHeight(box) {
  box.style.height = 'auto';
  box.style.height = box.scrollHeight + box.offsetHeight - box.clientHeight + 'px';
}

// Keyboards on screens come up when a box has the focus: nobody wants that unasked.
function focusBox(box) {
  if (matchMedia('(pointer: fine)').matches) box.focus();
}

// Put a popover under the button that opened it, or over it, wholly in sight; `end`: they end
// at the same place instead of beginning there.
function placeBeside(popover, button, end = false) {
  const b = button.getBoundingClientRect(), p = popover.getBoundingClientRect();
  const left = Math.min(end ? b.right - p.width : b.left, innerWidth - p.width - 8);
  const below = b.bottom + 4 + p.height <= innerHeight - 8;
  popover.style.left = Math.max(left, 8) + 'px';
  popover.style.top = (below ? b.bottom + 4 : Math.max(b.top - 4 - p.height, 8)) + 'px';
}
