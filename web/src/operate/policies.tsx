/** A policy as text: what is wrong with it while one writes, what it would change, and putting it in force. */

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, ask, key, wordsOf } from "../api";
import { when } from "../words";
import { usePolled } from "./polled";
import { Preview, type PreviewReport, type Problem } from "./preview";
import { Said } from "./said";

interface Listed {
  data: { name: string; digest: string; description: string }[];
  problems: string[];
}

interface PolicyFile {
  name: string;
  digest: string;
  text: string;
  versions: { digest: string; since: string }[];
}

/** What was written and is not in force, and of which version it is a change. */
interface Draft {
  text: string;
  digest: string;
}

const PAUSE_MS = 450;

/** By policy. They outlive the view: entering a key, or looking elsewhere, loses nothing that was written. */
const drafts = signal<Readonly<Record<string, Draft>>>({});

function draft(name: string, to: Draft | null): void {
  const { [name]: _, ...others } = drafts.value;
  drafts.value = to ? { ...others, [name]: to } : others;
}

export function Policies() {
  const { data, failure, missing, again } = usePolled<Listed>("v1/policies", 0);
  const [name, setName] = useState("");
  const chosen = name || data?.data[0]?.name || "";
  if (!data) return <Said failure={failure} missing={missing} what="policies" again={again} />;
  return (
    <section aria-label="Policies" class="policies">
      <div class="row">
        <label class="row">
          <span class="caption">Policy</span>
          <select value={chosen} onChange={(event) => setName(event.currentTarget.value)}>
            {data.data.map((one) => (
              <option value={one.name}>{one.name}</option>
            ))}
          </select>
        </label>
        <span class="small">{data.data.find((one) => one.name === chosen)?.description}</span>
      </div>
      {data.problems.map((text) => (
        <p class="problem">{text}</p>
      ))}
      {chosen && <Editor key={chosen} name={chosen} onChange={again} />}
    </section>
  );
}

function Editor({ name, onChange }: { name: string; onChange: () => void }) {
  const [file, setFile] = useState<PolicyFile | null>(null);
  const [preview, setPreview] = useState<PreviewReport | null>(null);
  const [unchecked, setUnchecked] = useState("");
  const [said, setSaid] = useState("");
  const [problem, setProblem] = useState("");
  const area = useRef<HTMLTextAreaElement>(null);
  const path = `v1/policies/${encodeURIComponent(name)}`;
  const own = drafts.value[name];
  const text = own?.text ?? file?.text ?? "";
  const setText = (to: string) => {
    if (file) draft(name, to === file.text ? null : { text: to, digest: own?.digest ?? file.digest });
  };

  useEffect(() => {
    let gone = false;
    ask<PolicyFile>(path)
      .then((found) => {
        if (gone) return;
        setFile(found);
        setProblem("");
      })
      .catch((error: unknown) => gone || setProblem(wordsOf(error)));
    return () => void (gone = true);
  }, [path, key.value]);

  useEffect(() => {
    setPreview(null);
    setUnchecked("");
    if (!file || text === file.text) return;
    const control = new AbortController();
    const timer = window.setTimeout(() => {
      ask<PreviewReport>(`${path}/preview`, { text, signal: control.signal })
        .then((found) => {
          setPreview(found);
          setUnchecked("");
        })
        .catch((error: unknown) => {
          if (control.signal.aborted) return;
          const none = error instanceof ApiError && (error.status === 404 || error.status === 405);
          setPreview(null);
          setUnchecked(
            none ? "This server cannot say beforehand what a change does; it checks it when it is put in force." : wordsOf(error),
          );
        });
    }, PAUSE_MS);
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [file, text]);

  const changed = file !== null && text !== file.text;
  const problems = preview?.problems ?? [];
  const act = async (what: string, path_: string, call: object) => {
    setProblem("");
    setSaid("");
    try {
      setFile(await ask<PolicyFile>(path_, call));
      draft(name, null);
      setSaid(what);
      onChange();
    } catch (error) {
      const more = error instanceof ApiError ? (error.failure.problems ?? []) : [];
      setProblem([wordsOf(error), ...more].join("\n"));
    }
  };
  const force = () =>
    act("It is in force: the next request follows it.", path, {
      method: "PUT",
      text,
      headers: { "if-match": `"${own?.digest ?? file?.digest ?? ""}"` },
    });
  const back = () => act("The version before is in force again.", `${path}/rollback`, { body: {} });
  const go = (line: number, column: number) => {
    const at = text.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0) + Math.max(0, column - 1);
    area.current?.focus();
    area.current?.setSelectionRange(at, at);
  };
  const mend = (one: Problem) => {
    const lines = text.split("\n");
    const line = lines[one.line - 1] ?? "";
    const head = line.slice(0, Math.max(0, one.column - 1));
    const rest = line.slice(head.length).replace(/^("[^"]*"|'[^']*'|[\w./-]+)/, one.proposal ?? "");
    lines[one.line - 1] = head + rest;
    setText(lines.join("\n"));
  };
  if (!file) return <p class="problem">{problem}</p>;
  return (
    <div class="editor">
      <div class="sheet">
        <Numbered text={text} wrong={new Set(problems.map((one) => one.line))} />
        <textarea
          ref={area}
          aria-label={`Text of policy ${name}`}
          aria-invalid={problems.length > 0}
          aria-describedby="verdict"
          spellcheck={false}
          wrap="off"
          rows={text.split("\n").length + 1}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </div>
      <div class="beside">
        <div class="row">
          <button type="button" class="primary" disabled={!changed || problems.length > 0} onClick={() => void force()}>
            Put in force
          </button>
          <button type="button" disabled={!changed} onClick={() => setText(file.text)}>
            Undo changes
          </button>
          <button type="button" disabled={file.versions.length < 2} onClick={() => void back()}>
            Roll back
          </button>
        </div>
        <p class="small">
          In force: <code>{file.digest}</code>
          {file.versions.length > 1 && `, ${file.versions.length} versions kept`}
        </p>
        <p class="problem" role="alert">
          {problem}
        </p>
        <p role="status">{said}</p>
        {unchecked && <p class="warning">{unchecked}</p>}
        {preview && <Preview of={preview} onGo={go} onMend={mend} />}
        {!changed && (
          <p class="small">
            Change something: it is checked as you write, and tried on the last hundred decisions before it is in force.
          </p>
        )}
        {file.versions.length > 1 && (
          <details>
            <summary>Versions</summary>
            <ul class="versions">
              {file.versions.map((one) => (
                <li>
                  <code>{one.digest}</code> <span class="small">{when(Date.parse(one.since) / 1000)}</span>
                </li>
              ))}
            </ul>
          </details>
        )}
      </div>
    </div>
  );
}

function Numbered({ text, wrong }: { text: string; wrong: ReadonlySet<number> }) {
  return (
    <ol class="lines" aria-hidden="true">
      {text.split("\n").map((_, place) => (
        <li class={wrong.has(place + 1) ? "wrong" : ""}>{place + 1}</li>
      ))}
    </ol>
  );
}
