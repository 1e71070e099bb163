// Owns what the browser keeps: settings, and one entry a conversation.  Whatever is found there
// was perhaps written by another version, another tab, or broken: it is taken apart and only
// what is understood is kept.  Nothing here throws.
//
//   settings: {model, system, sampling, theme, side, panel, small}
//   chat:     {id, title, created, updated, model, system, skip, messages}
//     skip: how many of the oldest messages the model no longer sees
//   message:  {role: 'user', content} or {role: 'assistant', at, versions}
//   version:  {content, model, end, tokens, rate, total, letters, error, failed}
//     total, letters: tokens of the context up to its end, and letters that these were
//     end: 'running', 'stop', 'length', 'context', 'stopped' or 'error'
'use strict';

const store = (() => {
  const SETTINGS = 'runt.settings', PREFIX = 'runt.chat.';
  const MAX_CHATS = 200, MAX_MESSAGES = 2000, MAX_TEXT = 200000, MAX_VERSIONS = 8;
  const MAX_FILE = 8 << 20;
  const ENDS = ['running', 'stop', 'length', 'context', 'stopped', 'error'];
  const kept = new Map(); // id: chat
  let area = null;

  // Where storage is forbidden, everything lasts as long as the page.
  function open() {
    try {
      localStorage.setItem('runt.try', '1');
      localStorage.removeItem('runt.try');
      area = localStorage;
    } catch { area = null; }
    for (let i = 0; area && i < area.length; i++) {
      const name = area.key(i);
      if (name.startsWith(PREFIX)) load(name.slice(PREFIX.length));
    }
    return area !== null;
  }

  function read(name) {
    try {
      return JSON.parse(area.getItem(name));
    } catch { return null; }
  }

  // True if it was written; false if there is no room.
  function write(name, value) {
    if (!area) return true;
    try {
      area.setItem(name, JSON.stringify(value));
      return true;
    } catch { return false; }
  }

  // ---- taking apart what was found ----

  const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);
  const text = (v, most = MAX_TEXT) => typeof v === 'string' ? v.slice(0, most) : '';
  const number = (v) => Number.isFinite(v) ? v : null;

  function cleanVersion(v) {
    if (!isObject(v)) return null;
    let end = ENDS.includes(v.end) ? v.end : 'stop', error = text(v.error, 500);
    if (end === 'running') {
      end = 'error';
      error = 'The page was closed before the answer was complete.';
    }
    return {content: text(v.content), model: text(v.model, 200), end, error,
      failed: text(v.failed, 20), tokens: number(v.tokens), rate: number(v.rate),
      total: number(v.total), letters: number(v.letters)};
  }

  function cleanMessage(m) {
    if (!isObject(m)) return null;
    if (m.role === 'user') return {role: 'user', content: text(m.content)};
    if (m.role !== 'assistant') return null;
    const found = Array.isArray(m.versions) ? m.versions : [m]; // of a file: its one content
    const versions = found.slice(0, MAX_VERSIONS).map(cleanVersion).filter(Boolean);
    if (!versions.length) return null;
    const at = Number.isInteger(m.at) ? m.at : 0;
    return {role: 'assistant', versions, at: Math.min(Math.max(at, 0), versions.length - 1)};
  }

  // A chat of any value, or null.
  function cleanChat(v) {
    if (!isObject(v) || !Array.isArray(v.messages)) return null;
    const messages = v.messages.slice(0, MAX_MESSAGES).map(cleanMessage).filter(Boolean);
    const now = Date.now();
    return {id: text(v.id, 40) || newId(), title: text(v.title, 200), model: text(v.model, 200),
      system: text(v.system), messages, created: number(v.created) ?? now,
      updated: number(v.updated) ?? now,
      skip: Math.min(Math.max(Math.trunc(number(v.skip) ?? 0), 0), messages.length)};
  }

  function cleanSettings(v) {
    const o = isObject(v) ? v : {}, small = isObject(o.small) ? o.small : {};
    const sampling = {};
    for (const [key, x] of Object.entries(isObject(o.sampling) ? o.sampling : {}))
      if (Number.isFinite(x)) sampling[key] = x;
    return {model: text(o.model, 200), system: text(o.system), sampling,
      theme: ['light', 'dark'].includes(o.theme) ? o.theme : 'auto',
      side: o.side !== false, panel: o.panel === true,
      small: {names: Array.isArray(small.names) ? small.names.map((n) => text(n, 200)) : null,
        order: small.order === 'once' ? 'once' : 'turns', prompt: text(small.prompt)}};
  }

  // Enough to tell conversations apart; crypto.randomUUID is not there over plain HTTP.
  function newId() {
    const r = crypto.getRandomValues(new Uint32Array(2));
    return Date.now().toString(36) + '-' + r[0].toString(36) + r[1].toString(36);
  }

  // ---- conversations ----

  function load(id) {
    const chat = id ? cleanChat(read(PREFIX + id)) : null;
    if (chat?.messages.length) kept.set(id, {...chat, id});
    else kept.delete(id);
    return chat;
  }

  function chats() {
    return [...kept.values()].sort((a, b) => b.updated - a.updated);
  }

  function oldest(except) {
    return chats().reverse().find((c) => c.id !== except);
  }

  // Keep it, at the price of the oldest ones where there is no room.  What was lost for it is
  // told: 'kept', 'dropped' (an old one went) or 'full' (it alone is too large).
  function put(chat) {
    let said = 'kept';
    kept.set(chat.id, chat);
    while (kept.size > MAX_CHATS) {
      remove(oldest(chat.id).id);
      said = 'dropped';
    }
    while (!write(PREFIX + chat.id, chat)) {
      const victim = oldest(chat.id);
      if (!victim) return 'full';
      remove(victim.id);
      said = 'dropped';
    }
    return said;
  }

  function remove(id) {
    kept.delete(id);
    try {
      area?.removeItem(PREFIX + id);
    } catch { /* then it comes back at the next start */ }
  }

  // ---- files ----

  // In the form that `runt chat` saves and loads: a list of messages with role and content.
  function toFile(chat) {
    const messages = chat.system ? [{role: 'system', content: chat.system}] : [];
    for (const m of chat.messages) {
      if (m.role === 'user') messages.push({role: m.role, content: m.content});
      else messages.push({role: m.role, content: m.versions[m.at].content,
        model: m.versions[m.at].model});
    }
    return JSON.stringify({title: chat.title, model: chat.model,
      created: new Date(chat.created).toISOString(), messages}, null, 1) + '\n';
  }

  // A new chat of a file's text, or a line that says why there is none.
  function fromFile(content) {
    let v;
    if (content.length > MAX_FILE) return 'The file is too large for a conversation.';
    try {
      v = JSON.parse(content);
    } catch { return 'The file is no JSON.'; }
    if (!isObject(v) || !Array.isArray(v.messages))
      return 'The file has no list “messages”: it is no conversation.';
    const system = v.messages.filter((m) => isObject(m) && m.role === 'system')
      .map((m) => text(m.content)).join('\n');
    const chat = cleanChat({title: v.title, model: v.model, system, messages: v.messages,
      created: Date.parse(v.created)});
    if (!chat.messages.length) return 'The file has no message of a person or a model.';
    return chat;
  }

  return {
    open, put, remove, chats, newId, toFile, fromFile, cleanChat,
    get: (id) => kept.get(id),
    reload: load,
    idOf: (name) => name?.startsWith(PREFIX) ? name.slice(PREFIX.length) : null,
    settings: () => cleanSettings(area ? read(SETTINGS) : null),
    saveSettings: (s) => write(SETTINGS, s),
    // What lasts as long as the tab.
    tab(name, value) {
      try {
        if (value === undefined) return sessionStorage.getItem('runt.' + name);
        if (value === null) sessionStorage.removeItem('runt.' + name);
        else sessionStorage.setItem('runt.' + name, value);
      } catch { /* then it does not */ }
      return null;
    },
    // A text beside the settings, or null.
    own(name, value) {
      try {
        if (value === undefined) return localStorage.getItem('runt.' + name);
        if (value === null) localStorage.removeItem('runt.' + name);
        else localStorage.setItem('runt.' + name, value);
      } catch { /* not kept */ }
      return null;
    },
    MAX_VERSIONS,
  };
})();
