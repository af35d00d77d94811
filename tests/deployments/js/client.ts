// A program on types that openapi-typescript made of the document: `node client.js BASE_URL`.
import createClient from "openapi-fetch";
import type { components, paths } from "./document.js";

const client = createClient<paths>({ baseUrl: process.argv[2]! });
const { data, error } = await client.POST("/v1/images/generations", { body: { prompt: "a red circle", n: 2, seed: 7 } });
if (error !== undefined) throw new Error(error.error.message);
const report: components["schemas"]["Report"] = data.x_triptych;
const pictures: string[] = data.data.map((one) => one.b64_json ?? "");
const job = await client.POST("/v1/jobs", { body: { prompt: "a red circle" } });
if (job.data === undefined) throw new Error(job.error.error.message);
const found = await client.GET("/v1/jobs/{id}", { params: { path: { id: job.data.id } } });
const chat = await client.POST("/v1/chat/completions", { body: { messages: [{ role: "user", content: "a red circle" }] } });
const image = await client.POST("/sdapi/v1/txt2img", { body: { prompt: "a red circle", batch_size: 1 } });
const refused = await client.POST("/v1/images/generations", { body: { prompt: "" } });
console.log(JSON.stringify({
  pictures: pictures.length, recipe: report.recipe, state: found.data?.state, chat: chat.data?.choices[0]?.message.role,
  images: image.data?.images.length, code: refused.error?.error.code,
}));
