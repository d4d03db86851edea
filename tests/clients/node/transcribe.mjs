// Asks as an unmodified program does, with OpenAI's JavaScript client.
//
// Reads wishes from stdin and prints what came of each, both as JSON; transcribe.py does the same.

import fs from "node:fs";
import OpenAI from "openai";
import { VERSION } from "openai/version";

const answers = {};
for (const wish of JSON.parse(fs.readFileSync(0, "utf-8"))) {
  answers[wish.name] = await fulfil(wish);
}
process.stdout.write(JSON.stringify({ version: VERSION, answers }));

async function fulfil(wish) {
  const client = new OpenAI({
    baseURL: wish.url,
    apiKey: wish.key,
    maxRetries: wish.settings.max_retries,
  });
  const endpoint = client.audio[wish.call];
  const options = { file: fs.createReadStream(wish.file), model: wish.model, ...wish.options };
  try {
    return await (options.stream ? stream(endpoint, options) : ask(endpoint, options));
  } catch (error) {
    if (!(error instanceof OpenAI.APIError) || error.status === undefined) {
      throw error;
    }
    const { status, code, param, type } = error;
    const headers = Object.fromEntries(error.headers);
    return { exception: error.constructor.name, status, code, param, type, headers };
  }
}

async function ask(endpoint, options) {
  const { data, response } = await endpoint.create(options).withResponse();
  const headers = Object.fromEntries(response.headers);
  if (typeof data === "string") {
    return { headers, kind: "str", text: data, body: null };
  }
  return { headers, text: data.text, body: data };
}

async function stream(endpoint, options) {
  const { data, response } = await endpoint.create(options).withResponse();
  const events = [];
  for await (const event of data) {
    events.push(event);
  }
  return { headers: Object.fromEntries(response.headers), events };
}
