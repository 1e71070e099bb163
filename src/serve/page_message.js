// Owns how one message looks: its text, what stands under it, and the box to edit it in.  What
// its buttons do is page_chat.js's, which hands it an object of functions.
'use strict';

const message = (() => {
  const shown = (m) => m.versions[m.at];

  // What is said about how an answer ended.
  function ending(answer, context) {
    switch (answer.end) {
    case 'length': return 'Stopped at the longest answer allowed.';
    case 'context':
      return 'The context' + (context ? ' of ' + context + ' tokens' : '') +
        ' is full: the answer ends here.';
    case 'stopped': return answer.content ? 'Stopped.' : 'Stopped before the first word.';
    case 'error': return answer.error;
    default: return '';
    }
  }

  function figures(answer) {
    if (answer.end === 'running' || !answer.tokens) return '';
    return words.count(answer.tokens, 'token') + (answer.rate ? ' · ' + words.rate(answer.rate) : '');
  }

  // ‹ 2 of 3 ›
  function versionButtons(m, act) {
    if (m.versions.length < 2) return '';
    const turn = (by, name, label) => {
      const b = iconButton(name, label, () => act.turn(m, by));
      b.disabled = !m.versions[m.at + by];
      return b;
    };
    return make('span', {class: 'versions'}, turn(-1, 'back', 'The answer before'),
      make('span', {}, (m.at + 1) + ' of ' + m.versions.length),
      turn(1, 'next', 'The next answer'));
  }

  function problem(m, answer, act, context) {
    const line = make('div', {class: answer.end === 'error' ? 'problem' : 'ending'},
      make('span', {}, ending(answer, context)));
    if (answer.end === 'error')
      line.append(make('button', {class: 'quiet', type: 'button', click: () => act.again(m)},
        'Try again'));
    if (answer.failed === 'context' || answer.end === 'context')
      line.append(make('button', {class: 'quiet', type: 'button', click: act.fresh},
        'New conversation'));
    return line;
  }

  // ---- an answer ----

  // Bring the element of an answer up to date; its text alone changes while it is written.
  function updateAnswer(e, m, act, context, waiting) {
    const answer = shown(m), running = answer.end === 'running';
    e.setAttribute('aria-busy', String(running));
    e.classList.toggle('running', running);
    e.querySelector('.who').textContent = answer.model;
    renderText(e.querySelector('.text'), answer.content);
    const under = e.querySelector('.tools');
    if (running) {
      under.replaceChildren(make('span', {class: 'state'},
        waiting || (answer.content ? '' : 'Reading …')));
      return;
    }
    under.replaceChildren();
    if (ending(answer, context)) under.append(problem(m, answer, act, context));
    const tools = make('div', {class: 'row'}, versionButtons(m, act));
    if (answer.content) tools.append(iconButton('copy', 'Copy', () => copyText(answer.content)));
    if (answer.end !== 'error')
      tools.append(iconButton('again', 'Answer again', () => act.again(m)));
    tools.append(make('span', {class: 'figures'}, figures(answer)));
    under.append(tools);
  }

  function answerElement() {
    return make('li', {class: 'answer'},
      make('h2', {class: 'who'}), make('div', {class: 'text'}), make('div', {class: 'tools'}));
  }

  // ---- what the person said ----

  function userElement(m, act) {
    return make('li', {class: 'said'},
      make('h2', {class: 'unseen'}, 'You'),
      make('div', {class: 'text'}, make('p', {}, m.content)),
      make('div', {class: 'tools'}, make('div', {class: 'row'},
        iconButton('copy', 'Copy', () => copyText(m.content)),
        iconButton('edit', 'Edit, and go on from here', () => act.edit(m)))));
  }

  // In place of a message: the box to change it in.  `done` gets the text, or null.
  function editor(text, done) {
    const box = make('textarea', {class: 'edit', 'aria-label': 'Edit the message', rows: 1,
      input: () => fitHeight(box)});
    const save = () => { if (box.value.trim()) done(box.value.trim()); };
    box.value = text;
    const form = make('form', {submit: (e) => { e.preventDefault(); save(); },
      keydown: (e) => {
        if (e.key === 'Escape') {
          e.stopPropagation();
          done(null);
        } else if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && e.keyCode !== 229 &&
          e.target === box) {
          e.preventDefault();
          save();
        }
      }},
    box,
    make('div', {class: 'buttons'},
      make('span', {class: 'soft'}, 'The answer, and what follows it, is written anew.'),
      make('button', {class: 'quiet', type: 'button', click: () => done(null)}, 'Cancel'),
      make('button', {class: 'main', type: 'submit'}, 'Send')));
    return {row: make('li', {class: 'editor'}, form), box};
  }

  function divider() {
    return make('li', {class: 'divider'},
      'The context is full: the model no longer sees what stands above.');
  }

  return {shown, answerElement, updateAnswer, userElement, editor, divider, ending};
})();
