// OpenAI's own client against a server of runt: client.mjs URL CASE.
// The server has the model "tiny", the key "secret", one place and no queue (case full).
import assert from "node:assert/strict";
import OpenAI from "openai";

const [, , baseURL, name] = process.argv;
const connect = (more) => new OpenAI({ baseURL, apiKey: "secret", maxRetries: 0, ...more });
const client = connect();
const chat = { model: "tiny", temperature: 0, max_tokens: 12,
               messages: [{ role: "user", content: "Hello there" }] };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function fails(promise, kind, status, code) {
    let seen = null;
    try {
        await promise;
    } catch (e) {
        seen = e;
    }
    assert.ok(seen instanceof kind, `${kind.name} expected, not ${seen}`);
    assert.equal(seen.status, status);
    if (code) assert.equal(seen.code, code);
    assert.ok(seen.message.length > 4 && seen.requestID, seen);
    return seen;
}

const cases = {
    async chat() {
        const a = await client.chat.completions.create(chat);
        assert.equal(a.object, "chat.completion");
        assert.equal(a.choices.length, 1);
        assert.equal(a.choices[0].message.role, "assistant");
        assert.ok(a.choices[0].message.content.length > 0);
        assert.equal(a.choices[0].finish_reason, "length");
        assert.equal(a.usage.completion_tokens, 12);
        assert.match(a._request_id, /^req_/);
    },

    async stream() {
        const whole = await client.chat.completions.create(chat);
        const stream = await client.chat.completions.create(
            { ...chat, stream: true, stream_options: { include_usage: true } });
        let text = "", usage = null, finish = null, n = 0;
        for await (const chunk of stream) {
            assert.equal(chunk.object, "chat.completion.chunk");
            text += chunk.choices[0]?.delta.content ?? "";
            finish ??= chunk.choices[0]?.finish_reason ?? null;
            usage ??= chunk.usage;
            n++;
        }
        assert.equal(text, whole.choices[0].message.content);
        assert.equal(finish, "length");
        assert.equal(usage.completion_tokens, 12);
        assert.equal(usage.total_tokens, usage.prompt_tokens + 12);
        assert.ok(n >= 3, `${n} chunks`);
    },

    async helper() { // the client's own accumulator of a stream
        const runner = client.chat.completions.stream(chat);
        const final = await runner.finalChatCompletion();
        const whole = await client.chat.completions.create(chat);
        assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
    },

    async completions() {
        const text = await client.completions.create(
            { model: "tiny", prompt: "Once upon a time", max_tokens: 9, temperature: 0 });
        assert.equal(text.object, "text_completion");
        const ids = process.env.PROMPT_IDS.split(" ").map(Number);
        for (const prompt of [ids, [ids]]) {
            const a = await client.completions.create(
                { model: "tiny", prompt, max_tokens: 9, temperature: 0 });
            assert.equal(a.choices[0].text, text.choices[0].text);
            assert.equal(a.usage.prompt_tokens, ids.length);
        }
        let streamed = "";
        for await (const chunk of await client.completions.create(
            { model: "tiny", prompt: ids, max_tokens: 9, temperature: 0, stream: true }))
            streamed += chunk.choices[0].text;
        assert.equal(streamed, text.choices[0].text);
    },

    async embeddings() {
        const input = ["the cat sat", "a dog ran"];
        // without a word about the format this client asks for base64 and decodes it
        const a = await client.embeddings.create({ model: "tiny", input });
        const b = await client.embeddings.create(
            { model: "tiny", input, encoding_format: "float" });
        const raw = await client.embeddings.create(
            { model: "tiny", input, encoding_format: "base64" });
        assert.equal(typeof raw.data[0].embedding, "string");
        for (const i of [0, 1]) {
            const x = a.data[i].embedding, y = b.data[i].embedding;
            assert.equal(x.length, 256);
            assert.deepEqual(Array.from(x), y.map(Math.fround));
            const length = x.reduce((sum, v) => sum + v * v, 0);
            assert.ok(Math.abs(length - 1) < 1e-5, length);
        }
    },

    async models() {
        const names = [];
        for await (const m of client.models.list()) names.push(m.id);
        assert.deepEqual(names, ["tiny"]);
        assert.equal((await client.models.retrieve("tiny")).object, "model");
        await fails(client.models.retrieve("absent"), OpenAI.NotFoundError, 404);
    },

    async errors() {
        await fails(connect({ apiKey: "wrong" }).chat.completions.create(chat),
                    OpenAI.AuthenticationError, 401, "invalid_api_key");
        await fails(client.chat.completions.create({ ...chat, model: "gpt-4" }),
                    OpenAI.NotFoundError, 404, "model_not_found");
        const e = await fails(client.chat.completions.create({ ...chat, temperature: 9 }),
                              OpenAI.BadRequestError, 400);
        assert.equal(e.param, "temperature");
        assert.equal(e.type, "invalid_request_error");
        await fails(client.chat.completions.create({ ...chat, messages: [] }),
                    OpenAI.BadRequestError, 400);
        await fails(client.completions.create(
            { model: "tiny", prompt: "word ".repeat(2000) }),
                    OpenAI.BadRequestError, 400, "context_length_exceeded");
    },

    async schema() {
        const a = await client.chat.completions.create({
            ...chat, max_tokens: 60, response_format: {
                type: "json_schema", json_schema: { name: "animal", strict: true, schema: {
                    type: "object", required: ["legs"], additionalProperties: false,
                    properties: { legs: { type: "integer" } } } } } });
        const text = a.choices[0].message.content;
        if (a.choices[0].finish_reason === "stop")
            assert.equal(typeof JSON.parse(text).legs, "number");
    },

    async abort() {
        const long = { model: "tiny", prompt: [5, 6, 7], max_tokens: 250, temperature: 0,
                       ignore_eos: true, stream: true };
        let stream = await client.completions.create(long), n = 0;
        for await (const chunk of stream)
            if (++n === 2) stream.controller.abort();
        assert.ok(n < 250, `${n} chunks`);
        stream = await client.completions.create(long);
        for await (const chunk of stream) break; // leaving the loop aborts, too
        const c = new AbortController();
        const whole = client.completions.create({ ...long, stream: false },
                                                { signal: c.signal });
        setTimeout(() => c.abort(), 100);
        await assert.rejects(whole, OpenAI.APIUserAbortError);
    },

    async full() {
        const long = { model: "tiny", prompt: [5, 6, 7], max_tokens: 900, temperature: 0,
                       ignore_eos: true, stream: true };
        const first = await client.completions.create(long);
        const events = first[Symbol.asyncIterator]();
        await events.next();
        const e = await fails(client.chat.completions.create(chat),
                              OpenAI.RateLimitError, 429, "queue_full");
        assert.ok(Number(e.headers.get("retry-after")) >= 1);
        // with its default of two retries it comes through once there is room
        const later = connect({ maxRetries: 5 }).chat.completions.create(chat);
        await pause(300);
        first.controller.abort();
        assert.ok((await later).choices.length);
    },
};

await cases[name]();
