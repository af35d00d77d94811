/** The jobs that are shown large, one, or several side by side. */

import { signal } from "@preact/signals";
import { ask, here, wordsOf } from "../api";
import { originals } from "../edit/before";
import { takeMade } from "../edit/given";
import { type Job, cancel, isOpen, jobs } from "../jobs";
import { again, mapKept } from "../requests";
import { load, show, shown } from "../settings";
import { dollars, plural, seconds, share } from "../words";
import { send } from "./make";
import { problem } from "./problem";
import { Picture } from "./picture";
import { Rounds } from "./rounds";
import { sentence } from "./why";

export function Stage() {
  const ids = shown.value;
  if (!ids.length) return <Nothing />;
  const together = ids.length > 1 ? jobs.value.get(ids[0]!)?.report : undefined;
  return (
    <div class={ids.length > 1 ? "stage many" : "stage"}>
      {together && (
        <h2 class="together">
          {together.prompt} <small>over {ids.length} recipes, all with the same seed</small>
        </h2>
      )}
      {ids.map((id) => {
        const job = jobs.value.get(id);
        return job ? <Shown key={id} job={job} small={ids.length > 1} /> : <article class="job" key={id} aria-busy="true" />;
      })}
    </div>
  );
}

function Nothing() {
  return (
    <div class="nothing">
      <div class="panels" aria-hidden="true">
        <span />
        <span />
        <span />
      </div>
      <p>
        Say what you want to see. As you type, every recipe is estimated; the policy takes one, and the picture is looked
        at before you get it.
      </p>
    </div>
  );
}

/** Which picture of a job is told about below. */
const told = signal<ReadonlyMap<string, number>>(new Map());

function Shown({ job, small }: { job: Job; small: boolean }) {
  const { report } = job;
  const index = told.value.get(job.id) ?? 0;
  const pic = job.pics[index];
  const result = report.result?.x_triptych;
  const failure = report.state === "failed" ? report.error : job.lost;
  const size = sizeOf(job);
  const warnings = [...new Set([...(job.routed?.warnings ?? []), ...report.warnings])];
  return (
    <article class="job" aria-label={report.prompt ?? "Job"}>
      <header>
        {small ? <h3>{report.recipe ?? "…"}</h3> : <h2>{report.prompt ?? "(the prompt was not kept)"}</h2>}
        <p class="state">
          {!small && <strong>{report.recipe ?? "…"}</strong>} {stateOf(job)}
        </p>
        {isOpen(job) && (
          <button type="button" class="cancel" onClick={() => void cancel(job.id).catch(tell)}>
            Cancel
          </button>
        )}
      </header>
      <div class={`frames of${Math.min(job.pics.length, 4)}`}>
        {job.pics.map((one, place) => (
          <Picture
            key={place}
            pic={one}
            size={size}
            name={`${report.prompt ?? "picture"}${job.pics.length > 1 ? `, picture ${place + 1}` : ""}`}
            open={isOpen(job)}
            many={small || job.pics.length > 1}
            before={originals.value.get(job.id)?.url}
            chosen={job.pics.length > 1 && place === index}
            onChoose={job.pics.length > 1 ? () => (told.value = new Map(told.value).set(job.id, place)) : undefined}
          />
        ))}
      </div>
      {failure && (
        <p class="problem">
          {sentence(failure.message)}
        </p>
      )}
      {warnings.map((text) => (
        <p class="warning" key={text}>
          {sentence(text)}
        </p>
      ))}
      {pic && <Rounds pic={pic} />}
      {result && (
        <p class="small facts">
          {plural(report.pictures.length, "picture")} in {seconds(result.latency_s)} for {dollars(result.cost_usd)}, seed{" "}
          {report.pictures.map((one) => one.seed).join(", ")}, policy {result.policy}.
          {result.notes.map((note) => ` ${sentence(note)}`)}
        </p>
      )}
      {!isOpen(job) && <Acts job={job} index={index} />}
    </article>
  );
}

function tell(error: unknown): void {
  problem.value = wordsOf(error);
}

function sizeOf(job: Job): { width: number; height: number } {
  const first = job.pics.find((pic) => pic.picture)?.picture;
  const asked = /^(\d+)x(\d+)$/.exec(job.report.request.size ?? "");
  const plan = first ?? job.routed ?? job.report.result?.x_triptych.plan;
  if (plan) return { width: plan.width, height: plan.height };
  return asked ? { width: Number(asked[1]), height: Number(asked[2]) } : { width: 64, height: 64 };
}

function stateOf(job: Job): string {
  const { state, position, eta_s } = job.report;
  if (state === "queued") {
    const before = position ? `after ${plural(position, "other")}` : "next";
    return eta_s === null ? `waits, ${before}` : `waits, ${before}; about ${seconds(eta_s)}`;
  }
  if (state === "running") return "is being made";
  if (state === "failed") return "failed";
  if (state === "cancelled") return "cancelled";
  const checks = (job.report.result?.x_triptych.pictures ?? []).flatMap((one) =>
    one.checks.filter((check) => check.recipe === one.recipe && check.seed === one.seed),
  );
  if (!checks.length) return "made";
  const least = Math.min(...checks.map((check) => check.probability));
  return least < 0.5 ? `made, but probably not right: ${share(least)}` : `made, probably right: ${share(least)}`;
}

// ---------------------------------------------------------------------------------------------------------------- acts

const RATED = "triptych-rated";
const MOST_RATED = 500; // of the latest pictures; the feedback itself is the server's
const rated = signal(mapKept(localStorage.getItem(RATED)));

/** How feedback names a picture: the request, and its place in the answer. None: no answer has it, so it cannot be rated. */
function ratedAs(job: Job, index: number): { id: string; image: number } | null {
  const id = job.report.result?.x_triptych.request_id;
  const image = job.report.pictures.findIndex((one) => one.index === index);
  return id && image >= 0 ? { id, image } : null;
}

async function rate(job: Job, index: number, thumb: "up" | "down"): Promise<void> {
  await ask("v1/feedback", { body: { ...ratedAs(job, index), thumb } });
  const { [`${job.id}-${index}`]: _, ...others } = rated.value;
  const latest = Object.entries({ ...others, [`${job.id}-${index}`]: thumb }).slice(-MOST_RATED);
  rated.value = Object.fromEntries(latest);
  try {
    localStorage.setItem(RATED, JSON.stringify(rated.value));
  } catch {
    // full, or forbidden: it is rated all the same
  }
}

function nameOf(job: Job): string {
  return job.report.prompt ? `“${job.report.prompt}”` : "that picture";
}

const THUMB = "M2 9h3v9H2zM7 17.2V9.4l4-7.4c1.4 0 2.4 1.1 2.2 2.6L12.6 8H17c1.2 0 2 1.1 1.7 2.2l-1.6 6.3c-.2.9-1 1.5-1.9 1.5H9z";

function Acts({ job, index }: { job: Job; index: number }) {
  const picture = job.pics[index]?.picture;
  const replay = job.report.result?.x_triptych.replay;
  const mine = rated.value[`${job.id}-${index}`];
  return (
    <div class="row acts">
      {picture && (
        <a class="button" href={here(picture.url)} download={`${picture.id}.${picture.media_type.split("/")[1]}`}>
          Download
        </a>
      )}
      <button
        type="button"
        onClick={() => {
          const body = { ...again(replay ?? job.report.request), partial_images: 3 };
          void send([body], undefined, originals.value.get(job.id)?.picture);
        }}
        title={replay ? "The same recipe and seed: the same picture" : "The same request"}
      >
        {replay ? "Replay" : "Try again"}
      </button>
      <button
        type="button"
        onClick={() => {
          load({ ...job.report.request, ...replay });
          document.querySelector<HTMLTextAreaElement>(".prompt textarea")?.focus();
        }}
      >
        Edit prompt
      </button>
      {picture && (
        <button
          type="button"
          title="Paint over what should change in it"
          onClick={() => void takeMade(picture.url, nameOf(job)).catch(tell)}
        >
          Edit picture
        </button>
      )}
      {ratedAs(job, index) && (
        <span class="thumbs" role="group" aria-label="Is it what you asked for?">
          {(["up", "down"] as const).map((thumb) => (
            <button
              type="button"
              class={`icon ${thumb}`}
              aria-pressed={mine === thumb}
              aria-label={thumb === "up" ? "It is right" : "It is not right"}
              title={thumb === "up" ? "It is right" : "It is not right"}
              onClick={() => void rate(job, index, thumb).catch(tell)}
            >
              <svg viewBox="0 0 20 20" aria-hidden="true">
                <path d={THUMB} />
              </svg>
            </button>
          ))}
        </span>
      )}
      {shown.value.length > 1 && (
        <button type="button" class="link" onClick={() => show([job.id])}>
          Only this
        </button>
      )}
    </div>
  );
}
