// Owns the list of conversations: opening, renaming, deleting, files.
'use strict';

const chats = (() => {
  let chosen = null; // id of the chat whose menu is open
  let onOpen = () => {};

  function row(c) {
    const here = c.id === chat.current().id && !$('chat').hidden, title = c.title || 'Without a name';
    const open = make('button', {class: 'title', type: 'button', title,
      'aria-current': here ? 'true' : null, click: () => onOpen(c.id)}, title);
    if (chat.isRunning(c.id))
      open.append(make('span', {class: 'busy'}, make('span', {class: 'unseen'}, ' (answering)')));
    return make('li', {'data-id': c.id}, open,
      make('button', {class: 'icon small', type: 'button', popovertarget: 'chat-menu',
        'aria-label': 'Rename, export or delete “' + title + '”', 'aria-haspopup': 'dialog',
        click: () => { chosen = c.id; }}, icon('more')));
  }

  // Keeps the focus where it was: the list is drawn again whenever an answer ends.
  function show() {
    const list = store.chats(), at = document.activeElement;
    const id = at?.closest('#chats li')?.dataset.id, k = at?.classList.contains('title') ? 0 : 1;
    if (at?.closest('#chats form')) return; // a name is being typed
    $('chats').replaceChildren(...list.map(row));
    $('chats-none').hidden = list.length > 0;
    if (id) rowOf(id)?.querySelectorAll('button')[k]?.focus();
  }

  function rowOf(id) {
    return $('chats').querySelector('[data-id="' + CSS.escape(id) + '"]');
  }

  // ---- the menu ----

  $('chat-menu').addEventListener('toggle', (e) => {
    if (e.newState !== 'open' || !chosen) return;
    placeBeside($('chat-menu'), rowOf(chosen)?.lastChild ?? $('chats'), true);
  });
  $('chat-menu').addEventListener('click', (e) => {
    const what = e.target.closest('button')?.dataset.do, c = store.get(chosen);
    if (!what || !c) return;
    $('chat-menu').hidePopover();
    if (what === 'rename') rename(c);
    if (what === 'export') exportChat(c);
    if (what === 'delete') remove(c);
  });

  function rename(c) {
    let over = false;
    const box = make('input', {type: 'text', 'aria-label': 'Name of the conversation',
      maxlength: 200, autocomplete: 'off'});
    const done = (keep) => {
      if (over) return;
      over = true;
      if (keep && box.value.trim()) {
        c.title = box.value.trim();
        store.put(c);
      }
      const focused = document.activeElement === box;
      form.remove();
      show();
      chat.showState();
      if (focused) rowOf(c.id)?.querySelector('button').focus();
    };
    const form = make('form', {submit: (e) => { e.preventDefault(); done(true); },
      keydown: (e) => {
        if (e.key !== 'Escape') return;
        e.stopPropagation();
        done(false);
      }}, box);
    box.value = c.title;
    box.addEventListener('blur', () => done(true));
    rowOf(c.id).replaceChildren(form);
    box.focus();
    box.select();
  }

  function exportChat(c) {
    const name = c.title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '');
    saveFile((name.slice(0, 50) || 'conversation') + '.json', store.toFile(c));
  }

  function remove(c) {
    const here = c.id === chat.current().id;
    chat.drop(c.id);
    store.remove(c.id);
    if (here) onOpen(null);
    else show();
    notice('“' + isolate(c.title || 'Without a name') + '” was deleted.', 'Undo', () => {
      store.put(store.cleanChat(c));
      if (here) onOpen(c.id);
      else show();
    });
    (here ? $('box') : $('new')).focus();
  }

  // ---- files ----

  async function take(file) {
    let found = 'The file cannot be read.';
    try {
      if (file.size <= 64 << 20) found = store.fromFile(await file.text());
      else found = 'The file is too large for a conversation.';
    } catch { /* said below */ }
    if (typeof found === 'string') {
      notice(isolate(file.name) + ': ' + found);
      return;
    }
    const first = found.messages.find((m) => m.role === 'user');
    found.title ||= chat.titleOf(first ? first.content : file.name);
    found.updated = Date.now();
    if (store.put(found) === 'full') notice('There is no room in this browser to keep it.');
    onOpen(found.id);
  }

  $('import').addEventListener('click', () => $('import-file').click());
  $('import-file').addEventListener('change', () => {
    const file = $('import-file').files[0];
    $('import-file').value = '';
    if (file) take(file);
  });

  return {
    show, take,
    onOpen(f) { onOpen = f; },
  };
})();
