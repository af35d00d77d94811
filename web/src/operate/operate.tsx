/** Operate: what runs, what waits, what was decided and what it was worth; policies and keys. Needs the admin scope. */

import { useEffect } from "preact/hooks";
import { place } from "../settings";
import { Overview } from "./overview";
import { JobTable } from "./job_table";
import { Policies } from "./policies";
import { Keys } from "./keys";

const TABS = { "": "Overview", jobs: "Jobs", policies: "Policies", keys: "Keys" } as const;

export function Operate() {
  const tab = place.value.split("/")[2] ?? "";
  useEffect(() => {
    document.title = "Operate · Triptych";
    return () => void (document.title = "Triptych");
  }, []);
  return (
    <div class="operate">
      <h1>Operate</h1>
      <nav class="tabs" aria-label="Operate">
        {Object.entries(TABS).map(([name, label]) => (
          <a href={`#/operate${name && `/${name}`}`} aria-current={tab === name ? "page" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      {tab === "jobs" ? <JobTable /> : tab === "policies" ? <Policies /> : tab === "keys" ? <Keys /> : <Overview />}
    </div>
  );
}
