// A server that speaks what the page expects, and fails on demand in ways that are hard to
// provoke in a real one.  It serves the page from its sources, put together as the build does.
//
//   const mock = await Mock.start();
//   mock.reply = (body, n) => ({pieces: ['a', 'b'], delay: 5})   // of the n-th question
//     status, error, headers  refuse it         pieces, delay (ms)  stream it; a promise among
//                                                                   the pieces is waited for
//     usage, end              how it ends       cut                 hang up after the pieces
//     fault                   an error event    raws                bytes instead of an end
//     raw                     bytes instead of an error's JSON
//     bytes                   a whole stream, byte by byte
import {readFileSync} from 'node:fs';
import http from 'node:http';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

const SOURCES = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'src', 'serve');
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; " +
  "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

function wholePage() {
  const read = (name) => readFileSync(join(SOURCES, name), 'utf8');
  return read('page.html')
    .replace(/<link rel="stylesheet" href="([^"]+)">/, (_, f) => `<style>\n${read(f)}</style>`)
    .replace(/<script src="([^"]+)"><\/script>/g, (_, f) => `<script>\n${read(f)}</script>`);
}

export function entry(id, bytes, bits, more = {}) {
  return {id, object: 'model', created: 1790000000, owned_by: 'runt', runt: {file_bytes: bytes,
    bits_per_weight: bits, n_weights: 124000000, n_ctx: 1024, template: 'turns',
    tokens_per_second: null, ...more}};
}

export const MODELS = [
  entry('pocket-f16', 251200000, 16.2, {tokens_per_second: 41.6}),
  entry('pocket-q8', 133100000, 8.6, {tokens_per_second: 78.2}),
  entry('pocket-q4', 70900000, 4.57, {tokens_per_second: 131}),
  entry('pocket-r4', 62800000, 4.05),
  entry('tiny-q4', 2617152, 4.899, {n_ctx: 256, tokens_per_second: 2210}),
];

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Mock {
  static async start(port = 0) {
    const mock = new Mock();
    await mock.listen(port);
    return mock;
  }

  constructor() {
    this.models = MODELS;
    this.key = null;
    this.asked = []; // bodies of questions
    this.left = 0;   // clients that hung up before the end
    this.reply = () => ({});
  }

  async listen(port) {
    this.server = http.createServer((q, r) => this.handle(q, r).catch(() => r.destroy()));
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}/`;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  async handle(q, r) {
    if (q.url === '/') {
      r.writeHead(200, {'Content-Type': 'text/html; charset=utf-8',
        'Content-Security-Policy': POLICY, 'X-Content-Type-Options': 'nosniff'});
      r.end(wholePage());
    } else if (q.url === '/v1/models') {
      this.json(r, 200, {object: 'list', data: this.models});
    } else if (q.url === '/v1/chat/completions' && q.method === 'POST') {
      await this.answer(q, r);
    } else {
      this.refuse(r, 404, {message: `there is nothing at ${q.url}`, code: 'not_found'});
    }
  }

  json(r, status, value, headers = {}) {
    r.writeHead(status, {'Content-Type': 'application/json', ...headers});
    r.end(JSON.stringify(value));
  }

  refuse(r, status, error, headers) {
    this.json(r, status, {error: {type: 'invalid_request_error', param: null, code: null,
      ...error}}, headers);
  }

  async answer(q, r) {
    let text = '';
    for await (const part of q) text += part;
    const body = JSON.parse(text);
    if (this.key && q.headers.authorization !== `Bearer ${this.key}`) {
      this.refuse(r, 401, {message: 'an API key is needed', code: 'invalid_api_key'});
      return;
    }
    this.asked.push(body);
    const how = this.reply(body, this.asked.length) ?? {};
    if (how.bytes) {
      r.writeHead(200, {'Content-Type': 'text/event-stream'});
      for (const byte of how.bytes) {
        r.write(Buffer.from([byte]));
        await sleep(1);
      }
      r.end();
    } else if (how.raw !== undefined) {
      r.writeHead(how.status, how.headers);
      r.end(how.raw);
    } else if (how.status) {
      this.refuse(r, how.status, how.error ?? {message: 'no'}, how.headers);
    } else {
      await this.stream(r, body, how);
    }
  }

  async stream(r, body, how) {
    const said = body.messages.at(-1).content;
    const pieces = how.pieces ?? ['You ', 'said: ', said];
    const head = {id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: body.model};
    const put = (more) => r.write(`data: ${JSON.stringify({...head, ...more})}\n\n`);
    const choice = (delta, finish_reason = null) =>
      ({choices: [{index: 0, delta, logprobs: null, finish_reason}], usage: null});
    let gone = false;
    r.on('close', () => {
      gone = true;
      if (!r.writableEnded) this.left++;
    });
    r.writeHead(200, {'Content-Type': 'text/event-stream; charset=utf-8'});
    r.flushHeaders();
    put(choice({role: 'assistant', content: ''}));
    for (const piece of pieces) {
      const content = await piece;
      if (gone) return;
      if (typeof content === 'string') put(choice({content}));
      if (how.delay) await sleep(how.delay);
    }
    if (how.cut) {
      await sleep(20);
      r.destroy();
    } else if (how.fault) {
      r.end(`data: ${JSON.stringify({error: {message: how.fault, code: null}})}\n\n`);
    } else if (how.raws !== undefined) {
      r.end(how.raws);
    } else {
      put(choice({}, how.end ?? 'stop'));
      const n = pieces.length, prompt = body.messages.reduce((s, m) => s + m.content.length, 0);
      const usage = {prompt_tokens: Math.ceil(prompt / 4), completion_tokens: n,
        total_tokens: Math.ceil(prompt / 4) + n,
        runt: {prompt_seconds: 0.01, completion_seconds: (n - 1) / 100}, ...how.usage};
      if (body.stream_options?.include_usage) put({choices: [], usage});
      r.end('data: [DONE]\n\n');
    }
  }
}
