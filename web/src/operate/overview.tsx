/** What runs and waits, which recipes were taken and what they were worth, who used how much, what was refused. */

import { dollars, plural, seconds, share, two } from "../words";
import { usePolled } from "./polled";
import { Said } from "./said";
import { Table } from "./table";

interface ModelRow {
  name: string;
  worker: string | null;
  state: string;
  detail: string | null;
  replicas: number;
  age_s: number | null;
  memory_gb: number | null;
  seconds_per_picture: number | null;
  batch: number | null;
  queue: { interactive_s: number; standard_s: number; batch_s: number; steps: number };
  running_steps: number;
  breaker: string;
}

interface RecipeRow {
  policy: string;
  recipe: string;
  pictures: number;
  share: number;
  predicted: number | null;
  verified: number | null;
  checked: number;
  rated: number;
  rating: number | null;
  seconds: number | null;
}

interface TenantRow {
  tenant: string;
  jobs: number;
  pictures: number;
  cost_usd: number;
  seconds: number;
  budget: { limit_usd: number; spent_usd: number; period: string } | null;
}

interface Overviewed {
  since: number;
  version: string;
  now: number;
  models: ModelRow[];
  jobs: Record<"queued" | "running" | "done" | "failed" | "cancelled", number>;
  recipes: RecipeRow[];
  tenants: TenantRow[];
  refusals: { reason: string; count: number }[];
  window_s: number;
}

const EVERY_MS = 2500;

export function Overview() {
  const { data, failure, missing, again } = usePolled<Overviewed>("v1/admin/overview", EVERY_MS);
  if (!data) return missing ? <Ready /> : <Said failure={failure} missing={false} what="the overview" again={again} />;
  return (
    <>
      <Said failure={failure} missing={missing} what="the overview" again={again} />
      <Counts of={data} />
      <Models rows={data.models} />
      <Recipes rows={data.recipes} window_s={data.window_s} />
      <Tenants rows={data.tenants} />
      <Refusals rows={data.refusals} />
    </>
  );
}

function span(window_s: number): string {
  return window_s >= 7200 ? `the last ${Math.round(window_s / 3600)} hours` : `the last ${Math.round(window_s / 60)} minutes`;
}

function Counts({ of }: { of: Overviewed }) {
  return (
    <section aria-labelledby="counts">
      <h2 id="counts" class="unseen">
        Jobs
      </h2>
      <dl class="counts">
        {(["running", "queued", "done", "failed", "cancelled"] as const).map((state) => (
          <div key={state}>
            <dt>{state === "queued" ? "waiting" : state}</dt>
            <dd>{of.jobs[state] ?? 0}</dd>
          </div>
        ))}
      </dl>
      <p class="small">
        Version {of.version}, up for {seconds(Math.max(0, of.now - of.since))}. Ended jobs are of {span(of.window_s)}.
      </p>
    </section>
  );
}

const CLASSES = ["interactive", "standard", "batch"] as const;

function Models({ rows }: { rows: ModelRow[] }) {
  const most = Math.max(1, ...rows.map((row) => CLASSES.reduce((sum, one) => sum + row.queue[`${one}_s`], 0)));
  return (
    <section aria-labelledby="models">
      <h2 id="models">Models</h2>
      <Table
        caption="Models, with the seconds of work that wait for each by class"
        heads={["Model", "State", "Worker", "#Replicas", "Waiting, in seconds of work", "#A picture", "#Memory"]}
        rows={rows.map((row) => ({
          key: row.name,
          cells: [
            <strong>{row.name}</strong>,
            <span class={`state ${row.breaker === "open" ? "broken" : row.state}`}>
              {row.breaker === "open" ? "paused after failures" : row.state}
              {row.running_steps > 0 && <span class="small">, {plural(row.running_steps, "step")} running</span>}
              {row.detail && <span class="small detail">{row.detail}</span>}
            </span>,
            row.worker ?? "–",
            row.replicas,
            <Queue row={row} most={most} />,
            row.seconds_per_picture === null ? "–" : seconds(row.seconds_per_picture),
            row.memory_gb === null ? "–" : `${row.memory_gb.toFixed(1)} GB`,
          ],
        }))}
      />
    </section>
  );
}

function Queue({ row, most }: { row: ModelRow; most: number }) {
  const parts = CLASSES.map((one) => ({ one, s: row.queue[`${one}_s`] }));
  const total = parts.reduce((sum, part) => sum + part.s, 0);
  const words = parts.map(({ one, s }) => `${one} ${seconds(s)}`).join(", ");
  return (
    <span class="queue" title={words}>
      <span class="stack" aria-hidden="true">
        {parts.map(({ one, s }) => (
          <span key={one} class={one} style={{ flexBasis: `${(100 * s) / most}%` }} />
        ))}
      </span>
      <span class="figure" aria-hidden="true">
        {total ? seconds(total) : "0"}
      </span>
      <span class="unseen">{words}</span>
    </span>
  );
}

function Recipes({ rows, window_s }: { rows: RecipeRow[]; window_s: number }) {
  return (
    <section aria-labelledby="taken">
      <h2 id="taken">Recipes</h2>
      <p class="small">
        Of {span(window_s)}. Verified is the share that is right by the pictures that were looked at.
      </p>
      <Table
        caption="Recipes that were taken, predicted against verified quality"
        none="No picture was made yet."
        heads={["Policy", "Recipe", "Share", "#Pictures", "#Predicted", "#Verified", "#Looked at", "#Rating", "#Time"]}
        rows={rows.map((row) => ({
          key: `${row.policy}/${row.recipe}`,
          cells: [
            row.policy,
            <strong>{row.recipe}</strong>,
            <span class="share">
              <span class="track" aria-hidden="true">
                <span style={{ transform: `scaleX(${row.share})` }} />
              </span>
              {share(row.share)}
            </span>,
            row.pictures,
            two(row.predicted),
            <span class={low(row) ? "low" : ""}>{two(row.verified)}</span>,
            row.checked,
            row.rated ? `${two(row.rating)} (${row.rated})` : "–",
            row.seconds === null ? "–" : seconds(row.seconds),
          ],
        }))}
      />
    </section>
  );
}

/** Less was right than predicted, by more than chance would explain. */
function low({ predicted, verified, checked }: RecipeRow): boolean {
  if (predicted === null || verified === null || checked < 10) return false;
  return predicted - verified > 2 * Math.sqrt((predicted * (1 - predicted) + 0.01) / checked);
}

function Tenants({ rows }: { rows: TenantRow[] }) {
  return (
    <section aria-labelledby="tenants">
      <h2 id="tenants">Tenants</h2>
      <Table
        caption="What each tenant used"
        none="Nobody has asked for anything yet."
        heads={["Tenant", "#Jobs", "#Pictures", "#Work", "#Cost", "Budget"]}
        rows={rows.map((row) => ({
          key: row.tenant,
          cells: [
            <strong>{row.tenant || "(nobody named)"}</strong>,
            row.jobs,
            row.pictures,
            seconds(row.seconds),
            dollars(row.cost_usd),
            row.budget
              ? `${dollars(row.budget.spent_usd)} of ${dollars(row.budget.limit_usd)} a ${row.budget.period}`
              : "none",
          ],
        }))}
      />
    </section>
  );
}

function Refusals({ rows }: { rows: Overviewed["refusals"] }) {
  return (
    <section aria-labelledby="refusals">
      <h2 id="refusals">Refusals</h2>
      <Table
        caption="What was refused, by reason"
        none="Nothing was refused."
        heads={["Reason", "#Times"]}
        rows={rows.map((row) => ({ key: row.reason, cells: [row.reason.replaceAll("_", " "), row.count] }))}
      />
    </section>
  );
}

/** All that a server without the overview says: which models are ready. */
function Ready() {
  const { data, failure, again } = usePolled<{ status: string; models: Record<string, { state: string; detail?: string }> }>(
    "readyz",
    EVERY_MS,
  );
  return (
    <>
      <p class="warning">
        This server does not offer the overview yet; a newer one does. What it says is which models are ready.
      </p>
      <Said failure={failure} missing={false} what="readiness" again={again} />
      <Table
        caption="Models"
        heads={["Model", "State"]}
        rows={Object.entries(data?.models ?? {}).map(([name, one]) => ({
          key: name,
          cells: [<strong>{name}</strong>, typeof one === "string" ? one : one.state],
        }))}
      />
    </>
  );
}
