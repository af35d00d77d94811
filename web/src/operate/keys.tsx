/** Keys: who may ask for what, how often, at what cost. A new key is shown once. */

import { useState } from "preact/hooks";
import { ask, wordsOf } from "../api";
import { when } from "../words";
import { usePolled } from "./polled";
import { Said } from "./said";
import { Table } from "./table";

interface Key {
  id: string;
  tenant: string;
  scopes: string[];
  rpm: number | null;
  budget: string | null;
  priority: string | null;
  created_at: number;
  last_used_at: number | null;
  revoked_at: number | null;
  prefix?: string;
  key?: string;
}

const SCOPES = ["generate", "feedback", "admin"] as const;

export function Keys() {
  const { data, failure, missing, again } = usePolled<{ data: Key[] }>("v1/admin/keys", 0);
  const [made, setMade] = useState<Key | null>(null);
  const [problem, setProblem] = useState("");
  const act = async (what: Promise<unknown>): Promise<boolean> => {
    setProblem("");
    try {
      await what;
      again();
      return true;
    } catch (error) {
      setProblem(wordsOf(error));
      return false;
    }
  };
  if (!data) return <Said failure={failure} missing={missing} what="keys over HTTP (`triptych keys` on its machine does)" again={again} />;
  return (
    <section aria-label="Keys" class="keys-view">
      <p class="problem" role="alert">
        {problem}
      </p>
      <Make onMake={(body) => act(ask<Key>("v1/admin/keys", { body }).then(setMade))} />
      <div role="status">
        {made?.key && (
          <div class="made">
            <p>
              The key of <strong>{made.tenant}</strong>. It is shown this once; keep it now.
            </p>
            <div class="row">
              <code>{made.key}</code>
              <button type="button" onClick={() => void navigator.clipboard?.writeText(made.key ?? "")}>
                Copy
              </button>
              <button type="button" onClick={() => setMade(null)}>
                I have it
              </button>
            </div>
          </div>
        )}
      </div>
      <Table
        caption="Keys"
        none="There are no keys. As long as none was ever made, only this machine can ask, without one."
        heads={["Tenant", "Key", "May", "Class", "#A minute", "Budget", "Made", "Used", ""]}
        rows={data.data.map((one) => ({
          key: one.id,
          cells: [
            <strong>{one.tenant}</strong>,
            <code>{one.prefix ?? one.id}</code>,
            one.scopes.join(", "),
            one.priority ?? "interactive",
            one.rpm ?? "–",
            one.budget ?? "–",
            when(one.created_at),
            one.last_used_at === null ? "never" : when(one.last_used_at),
            one.revoked_at === null ? (
              <Revoke of={one} onRevoke={() => void act(ask(`v1/admin/keys/${encodeURIComponent(one.id)}`, { method: "DELETE" }))} />
            ) : (
              <span class="small">revoked {when(one.revoked_at)}</span>
            ),
          ],
        }))}
      />
    </section>
  );
}

/** Asked twice, since it cannot be taken back. */
function Revoke({ of, onRevoke }: { of: Key; onRevoke: () => void }) {
  const [sure, setSure] = useState(false);
  return (
    <button
      type="button"
      aria-label={`Revoke the key of ${of.tenant}${sure ? ", for good" : ""}`}
      onBlur={() => setSure(false)}
      onClick={() => (sure ? onRevoke() : setSure(true))}
    >
      {sure ? "Revoke for good" : "Revoke"}
    </button>
  );
}

/** onMake: whether the key was made; if not, what was typed stays. */
function Make({ onMake }: { onMake: (body: object) => Promise<boolean> }) {
  const [making, setMaking] = useState(false);
  return (
    <details class="new-key">
      <summary>New key</summary>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          if (making) return;
          const filled = event.currentTarget;
          const said = new FormData(filled);
          const text = (name: string) => String(said.get(name) ?? "").trim();
          setMaking(true);
          void onMake({
            tenant: text("tenant"),
            scopes: SCOPES.filter((scope) => said.has(scope)),
            rpm: text("rpm") ? Number(text("rpm")) : null,
            budget: text("budget") || null,
            priority: text("priority") || null,
          }).then((made) => {
            setMaking(false);
            if (made) filled.reset();
          });
        }}
      >
        <label class="field">
          <span class="caption">Tenant</span>
          <input name="tenant" required />
          <span class="small">whose jobs and budget it is</span>
        </label>
        <fieldset class="field">
          <legend class="caption">May</legend>
          <span class="row">
            {SCOPES.map((scope) => (
              <label class="row">
                <input type="checkbox" name={scope} defaultChecked={scope !== "admin"} />
                {scope}
              </label>
            ))}
          </span>
        </fieldset>
        <label class="field">
          <span class="caption">Requests a minute</span>
          <input name="rpm" type="number" min={1} placeholder="no limit" />
        </label>
        <label class="field">
          <span class="caption">Budget</span>
          <input name="budget" placeholder="5usd/day" />
        </label>
        <label class="field">
          <span class="caption">Highest class</span>
          <select name="priority">
            <option value="">interactive</option>
            <option value="standard">standard</option>
            <option value="batch">batch</option>
          </select>
        </label>
        <div class="field">
          <button type="submit" class="primary" aria-disabled={making}>
            Make the key
          </button>
        </div>
      </form>
    </details>
  );
}
