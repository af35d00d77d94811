// A program on the types that openapi-typescript makes of the document: `node client.js BASE_URL`.
import createClient from "openapi-fetch";
import type { components, paths } from "./document.js";

const client = createClient<paths>({ baseUrl: process.argv[2]! });

const made = await client.POST("/v1/images/generations", { body: { prompt: "a red circle", n: 2, seed: 7 } });
if (made.error !== undefined) throw new Error(made.error.error.message);
if (!("x_triptych" in made.data)) throw new Error("neither a stream nor a job was asked for");
const answer = made.data as components["schemas"]["ImagesAnswer"];
const report: components["schemas"]["Report"] = answer.x_triptych;
const pictures: string[] = answer.data.map((one) => one.b64_json ?? "");

const job = await client.POST("/v1/jobs", { body: { prompt: "a red circle" } });
if (job.data === undefined) throw new Error(job.error.error.message);
const found = await client.GET("/v1/jobs/{id}", { params: { path: { id: job.data.id } } });

const messages = [{ role: "user", content: "a red circle" }];
const chat = await client.POST("/v1/chat/completions", { body: { messages } });
if (chat.data === undefined || !("choices" in chat.data)) throw new Error("no stream was asked for");
const completion = chat.data as components["schemas"]["ChatCompletion"];
const message: components["schemas"]["ChatAnswer"] = completion.choices[0]!.message;

const drawn = await client.POST("/sdapi/v1/txt2img", { body: { prompt: "a red circle", batch_size: 1 } });
const refused = await client.POST("/v1/images/generations", { body: { prompt: "" } });
const states: string[] = ["queued", "running", "done"];

console.log(
  JSON.stringify({
    pictures: pictures.length,
    recipe: report.recipe,
    job: found.data !== undefined && states.includes(found.data.state),
    chat: message.role,
    images: drawn.data?.images.length,
    code: refused.error?.error.code,
  }),
);
