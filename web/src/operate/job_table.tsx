/** Everybody's jobs, the latest first, with cancel for those that are open. */

import { useState } from "preact/hooks";
import { ask, wordsOf } from "../api";
import type { JobReport, JobState } from "../types";
import { seconds, when } from "../words";
import { usePolled } from "./polled";
import { Said } from "./said";
import { Table } from "./table";

const STATES: readonly ("" | JobState)[] = ["", "queued", "running", "done", "failed", "cancelled"];

export function JobTable() {
  const [state, setState] = useState<"" | JobState>("");
  const [cursor, setCursor] = useState("");
  const [problem, setProblem] = useState("");
  const query = `?limit=50${state && `&state=${state}`}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`;
  const all = usePolled<{ data: JobReport[]; next_cursor: string | null }>(`v1/admin/jobs${query}`, 3000);
  const own = usePolled<{ data: JobReport[]; next_cursor: string | null }>(`v1/jobs${query}`, all.missing ? 3000 : 0);
  const found = all.missing ? own : all;
  const end = (id: string) => {
    setProblem("");
    ask(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" })
      .then(found.again)
      .catch((error: unknown) => setProblem(wordsOf(error)));
  };
  return (
    <section aria-label="Jobs">
      <div class="row">
        <label class="row">
          <span class="caption">State</span>
          <select
            value={state}
            onChange={(event) => {
              setState(event.currentTarget.value as "" | JobState);
              setCursor("");
            }}
          >
            {STATES.map((one) => (
              <option value={one}>{one === "" ? "all" : one === "queued" ? "waiting" : one}</option>
            ))}
          </select>
        </label>
        {cursor && (
          <button type="button" onClick={() => setCursor("")}>
            Latest
          </button>
        )}
      </div>
      {all.missing && <p class="warning">This server does not list everybody's jobs yet; these are yours.</p>}
      <Said failure={found.failure} missing={found.missing} what="the list of jobs" again={found.again} />
      <p class="problem" role="alert">
        {problem}
      </p>
      {found.data && (
        <Table
          caption="Jobs"
          none="There are none."
          heads={["Begun", "Prompt", "Tenant", "Recipe", "State", "#Pictures", "#Time", ""]}
          rows={found.data.data.map((job) => ({
            key: job.id,
            cells: [
              when(job.created_at),
              <a class="prompted" href={`#/jobs/${encodeURIComponent(job.id)}`} title={job.prompt ?? job.id}>
                {job.prompt ?? job.id}
              </a>,
              job.tenant || "–",
              job.recipe ?? "–",
              <span class={`state ${job.state}`} title={job.error?.message}>
                {job.state === "queued" ? "waiting" : job.state}
              </span>,
              job.n,
              job.finished_at === null ? "–" : seconds(job.finished_at - job.created_at),
              job.state === "queued" || job.state === "running" ? (
                <button type="button" aria-label={`Cancel ${job.prompt ?? job.id}`} onClick={() => end(job.id)}>
                  Cancel
                </button>
              ) : (
                ""
              ),
            ],
          }))}
        />
      )}
      {found.data?.next_cursor && (
        <button type="button" onClick={() => setCursor(found.data?.next_cursor ?? "")}>
          Older
        </button>
      )}
    </section>
  );
}
