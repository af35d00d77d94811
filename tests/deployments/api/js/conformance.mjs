// OpenAI's JavaScript client against a running server: `node conformance.mjs BASE_URL KEY`. Prints JSON lines, one a claim;
// the test that runs it wants every one of them to hold. Nothing but the client is between.
import OpenAI, { toFile } from 'openai';

const [base, key, throttled] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0 });
const prompt = 'a red circle';
// A mask of 64x64 that leaves everything open.
const CLEAR = 'iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAYAAACqaXHeAAAAJ0lEQVR42u3BAQ0AAADCoPdPbQ43oAAAAAAAAAAAAAAAAAAAAIB3A0BAAAGveg7oAAAAAElFTkSuQmCC';

async function claim(name, holds) {
  try {
    const found = await holds();
    console.log(JSON.stringify({ name, ok: found === true, found }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, found: `${error?.constructor?.name}: ${error?.message}` }));
  }
}

async function refused(kind, code, ask) {
  try {
    await ask();
  } catch (error) {
    return error instanceof kind && error.code === code ? true : `${error.constructor.name} ${error.status} ${error.code}`;
  }
  return 'nothing was refused';
}

await claim('generate', async () => {
  const answer = await client.images.generate({ prompt, model: 'auto', n: 2, size: '64x64', seed: 7 });
  return answer.data.length === 2 && answer.data.every((one) => one.b64_json.startsWith('iVBOR')) && answer.usage.total_tokens > 0;
});
await claim('addresses', async () => {
  const answer = await client.images.generate({ prompt, response_format: 'url' });
  const file = await fetch(answer.data[0].url);
  return file.ok && file.headers.get('content-type') === 'image/png';
});
await claim('formats', async () => {
  const answer = await client.images.generate({ prompt, output_format: 'webp', output_compression: 50 });
  return answer.data[0].b64_json.startsWith('UklGR') && answer.output_format === 'webp';
});
await claim('stream', async () => {
  const kinds = [];
  const stream = await client.images.generate({ prompt, stream: true, partial_images: 2, size: '64x64' });
  for await (const event of stream) kinds.push(event.type.replace('image_generation.', ''));
  return kinds.join() === 'partial_image,partial_image,completed' || kinds.join();
});
const photo = async (name, clear = false) => {
  const made = await client.images.generate({ prompt, size: '64x64', seed: 1 });
  const file = clear ? Buffer.from(CLEAR, 'base64') : Buffer.from(made.data[0].b64_json, 'base64');
  return toFile(file, name, { type: 'image/png' });
};
await claim('edit', async () => {
  const image = await photo('a.png');
  const mask = await photo('mask.png', true);
  const answer = await client.images.edit({ image, mask, prompt, n: 2, size: '64x64' });
  return answer.data.length === 2 && answer.data.every((one) => one.b64_json.startsWith('iVBOR'));
});
await claim('edit of several, streamed', async () => {
  const kinds = [];
  const image = [await photo('a.png'), await photo('b.png')];
  for await (const event of await client.images.edit({ image, prompt, stream: true, partial_images: 1 })) kinds.push(event.type);
  return kinds.at(-1) === 'image_edit.completed' || kinds.join();
});
await claim('edit of three, and what becomes of each', async () => {
  const image = [await photo('a.png'), await photo('b.png'), await photo('c.png', true)];
  const answer = await client.images.edit({ image, prompt, input_fidelity: 'high', size: '64x64' });
  const told = answer.x_triptych.warnings.filter((one) => one.includes('given pictures'));
  return (answer.data.length === 1 && told.length === 1 && told[0].includes('of the 3 given pictures')) || told;
});
await claim('edit of three under a mask, streamed', async () => {
  const image = [await photo('a.png'), await photo('b.png'), await photo('c.png')];
  const mask = await photo('mask.png', true);
  const events = [];
  for await (const event of await client.images.edit({ image, mask, prompt, stream: true, partial_images: 2 })) events.push(event);
  const last = events.at(-1);
  return (
    (events.every((one) => one.type.startsWith('image_edit.')) && last.type === 'image_edit.completed' &&
      last.b64_json.startsWith('iVBOR') && last.usage.total_tokens > 0) || events.map((one) => one.type).join()
  );
});
await claim('400 of a mask of another size', async () => {
  const image = await toFile(Buffer.from((await client.images.generate({ prompt, size: '128x128' })).data[0].b64_json, 'base64'), 'a.png', { type: 'image/png' });
  const mask = await photo('mask.png', true);
  return refused(OpenAI.BadRequestError, 'invalid_value', () => client.images.edit({ image, mask, prompt }));
});
await claim('variation', async () => {
  const answer = await client.images.createVariation({ image: await photo('a.png') });
  return answer.data.length === 1;
});
await claim('jobs by polling', async () => {
  let job = await client.post('/jobs', { body: { prompt, n: 2 } });
  for (let k = 0; k < 200 && !['done', 'failed'].includes(job.state); k++) {
    await new Promise((resolve) => setTimeout(resolve, 25));
    job = await client.get(`/jobs/${job.id}`);
  }
  return job.state === 'done' && job.pictures.length === 2 && job.result.data.length === 2;
});
await claim('models', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  const one = await client.models.retrieve('auto');
  return names.includes('auto') && one.owned_by === 'triptych';
});
await claim('chat', async () => {
  const messages = [{ role: 'user', content: prompt }];
  const answer = await client.chat.completions.create({ model: 'auto', messages, modalities: ['image', 'text'] });
  return answer.choices[0].message.images[0].image_url.url.startsWith('data:image/png;base64,');
});
await claim('streamed chat', async () => {
  let text = '';
  const messages = [{ role: 'user', content: prompt }];
  for await (const chunk of await client.chat.completions.create({ model: 'auto', messages, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
  }
  return text.startsWith('![picture](data:image/png;base64,');
});
await claim('responses', async () => {
  const answer = await client.responses.create({ model: 'auto', input: prompt, tools: [{ type: 'image_generation' }] });
  return answer.output[0].type === 'image_generation_call' && answer.output[0].result.startsWith('iVBOR');
});
await claim('streamed responses', async () => {
  const stream = client.responses.stream({ model: 'auto', input: prompt, tools: [{ type: 'image_generation' }] });
  const final = await stream.finalResponse();
  return final.status === 'completed' && final.output[0].result.startsWith('iVBOR');
});
await claim('400', () => refused(OpenAI.BadRequestError, 'invalid_value', () => client.images.generate({ prompt: '' })));
await claim('400 moderation', () =>
  refused(OpenAI.BadRequestError, 'content_policy_violation', () => client.images.generate({ prompt: 'a gory circle' })),
);
await claim('401', () =>
  refused(OpenAI.AuthenticationError, 'invalid_api_key', () =>
    new OpenAI({ baseURL: `${base}/v1`, apiKey: 'tp_wrong', maxRetries: 0 }).images.generate({ prompt }),
  ),
);
await claim('403', () => refused(OpenAI.PermissionDeniedError, 'scope_missing', () => client.get('/policies')));
await claim('404', () =>
  refused(OpenAI.NotFoundError, 'model_not_found', () => client.images.generate({ prompt, model: 'nothing' })),
);
await claim('409', async () => {
  const options = { headers: { 'Idempotency-Key': `js-${Date.now()}` } };
  await client.images.generate({ prompt }, options);
  return refused(OpenAI.ConflictError, 'idempotency_mismatch', () => client.images.generate({ prompt: 'other' }, options));
});
await claim('422', () =>
  refused(OpenAI.UnprocessableEntityError, 'no_recipe', () => client.images.generate({ prompt, size: '9999x9999' })),
);
await claim('429, then again by itself', async () => {
  const limited = new OpenAI({ baseURL: `${base}/v1`, apiKey: throttled, maxRetries: 0 });
  await limited.images.generate({ prompt });
  const first = await refused(OpenAI.RateLimitError, 'rate_limit_exceeded', () => limited.images.generate({ prompt }));
  const again = await limited.images.generate({ prompt }, { maxRetries: 2 });
  return first === true ? again.data.length === 1 : first;
});
await claim('500', () =>
  refused(OpenAI.InternalServerError, 'step_failed', () => client.images.generate({ prompt: 'a broken circle' })),
);
