// Owns the way to the server: requests, keys, waiting when it is told to wait, and streams of
// server-sent events.  Every failure is a Failure with a kind that the page knows what to do
// about, and a sentence that can be shown.
//
//   away     nobody answers            broken   the stream ended before the answer did
//   key      no key was given          busy     its queue is full, and it does not say until when
//   context  more than fits            refused  anything else that it does not want
//   stopped  by the person
'use strict';

class Failure extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

const api = (() => {
  const MAX_TRIES = 10, LONGEST_WAIT = 120, MAX_LINE = 1 << 20;
  let key = store.tab('key') || store.own('key');
  let askKey = async () => null; // (wrong) => a key, or null
  let asking = null;             // while the person is asked

  function setKey(value, keep) {
    key = value || null;
    store.tab('key', key);
    store.own('key', keep ? key : null);
  }

  // ---- what went wrong ----

  async function errorOf(response) {
    try {
      const error = (await response.json()).error;
      return typeof error === 'string' ? {message: error} : error ?? {};
    } catch { return {}; } // of a proxy, perhaps
  }

  function failureOf(status, error) {
    const said = typeof error.message === 'string' ? error.message.slice(0, 500) : '';
    if (error.code === 'context_length_exceeded') return new Failure('context', said);
    if (status === 429)
      return new Failure('busy', 'The server has too much to do: its queue is full.');
    if (status === 413) return new Failure('refused', 'The conversation is too long to be sent.');
    if ([502, 503, 504].includes(status) && !said)
      return new Failure('away', 'The server behind this address does not answer.');
    if (said) return new Failure('refused', 'The server said: ' + said);
    return new Failure('refused', 'The server answered with status ' + status + '.');
  }

  const stopped = () => new Failure('stopped', 'Stopped.');

  // ---- requests ----

  // Seconds that the server wants to be left alone, or null.
  function retryAfter(response) {
    const value = response.headers.get('Retry-After');
    if (!value || ![429, 503].includes(response.status)) return null;
    const seconds = /^\s*\d+\s*$/.test(value) ? +value : (Date.parse(value) - Date.now()) / 1000;
    return Number.isFinite(seconds) ? Math.max(Math.ceil(seconds), 1) : null;
  }

  function pause(seconds, signal, tick) {
    return new Promise((resolve, reject) => {
      const end = Date.now() + 1000 * seconds;
      const timer = setInterval(look, 250);
      function look() {
        const left = (end - Date.now()) / 1000;
        if (!signal?.aborted && left > 0) return tick?.(Math.ceil(left));
        clearInterval(timer);
        if (signal?.aborted) reject(stopped());
        else resolve();
      }
      signal?.addEventListener('abort', look, {once: true});
      look();
    });
  }

  // Ask the person once, however many requests want to know.
  async function newKey(wrong) {
    asking ??= askKey(wrong).finally(() => { asking = null; });
    return asking;
  }

  // The response, which is a good one.  `wait` is told the seconds that are left.
  async function send(path, options = {}, wait = null) {
    for (let tries = 1; ; tries++) {
      const used = key, headers = {...options.headers};
      let response;
      if (used) headers.Authorization = 'Bearer ' + used;
      try {
        response = await fetch(path, {...options, headers, cache: 'no-store',
          credentials: 'same-origin', redirect: 'error'});
      } catch {
        throw options.signal?.aborted ? stopped()
          : new Failure('away', 'The server does not answer. Is it still running?');
      }
      if (response.ok) return response;
      if (response.status === 401) {
        if (key === used && !await newKey(used !== null))
          throw new Failure('key', 'This server answers only to those who have a key.');
        if (options.signal?.aborted) throw stopped();
        continue;
      }
      const seconds = retryAfter(response);
      if (seconds !== null && seconds <= LONGEST_WAIT && tries < MAX_TRIES) {
        response.body?.cancel();
        await pause(seconds, options.signal, wait);
        continue;
      }
      throw failureOf(response.status, await errorOf(response));
    }
  }

  async function models() {
    const response = await send('v1/models');
    try {
      const list = (await response.json()).data;
      return list.filter((m) => typeof m?.id === 'string');
    } catch { throw new Failure('refused', 'The server’s list of models is not readable.'); }
  }

  // ---- streams ----

  // The data of server-sent events.
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    try {
      for (;;) {
        const {value, done} = await reader.read();
        if (done) return;
        const lines = (rest + value).split('\n');
        rest = lines.pop();
        for (const line of lines)
          if (line.startsWith('data:')) yield line.slice(5).trim();
        if (rest.length > MAX_LINE)
          throw new Failure('broken', 'The server sent a line without an end.');
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  function parseChunk(data) {
    try {
      return JSON.parse(data);
    } catch { throw new Failure('broken', 'The server sent something that is no JSON.'); }
  }

  function takeChunk(chunk, result, on) {
    if (chunk?.error) throw failureOf(500, chunk.error);
    const choice = chunk?.choices?.[0];
    if (typeof choice?.delta?.content === 'string' && choice.delta.content)
      on.text(choice.delta.content);
    if (typeof choice?.finish_reason === 'string') result.end = choice.finish_reason;
    if (chunk?.usage) result.usage = chunk.usage;
  }

  // An answer, piece by piece to on.text.  {end, usage}: OpenAI's finish_reason and usage.
  async function chat(body, on) {
    const response = await send('v1/chat/completions', {method: 'POST', signal: on.signal,
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true}})},
    on.wait);
    const result = {end: null, usage: null};
    on.open?.();
    try {
      for await (const data of events(response)) {
        if (data === '[DONE]') break;
        takeChunk(parseChunk(data), result, on);
      }
    } catch (e) {
      if (on.signal?.aborted) throw stopped();
      throw e instanceof Failure ? e
        : new Failure('broken', 'The connection broke off before the answer was complete.');
    }
    if (on.signal?.aborted) throw stopped();
    if (!result.end)
      throw new Failure('broken', 'The connection broke off before the answer was complete.');
    return result;
  }

  // Tokens a second of an answer: the first one ends the prompt's time.
  function rateOf(usage) {
    const seconds = usage?.runt?.completion_seconds, n = usage?.completion_tokens;
    return n > 1 && seconds > 0 ? (n - 1) / seconds : null;
  }

  return {
    models, chat, rateOf, setKey,
    hasKey: () => key !== null,
    keeps: () => store.own('key') !== null,
    onKey(f) { askKey = f; },
  };
})();
