/** The frame: wordmark, the two views, key and theme. */

import { useEffect, useRef, useState } from "preact/hooks";
import { key, keyWanted, setKey } from "./api";
import { Make } from "./make/make";
import { Operate } from "./operate/operate";
import { type Theme, theme, view } from "./settings";

export function Page() {
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to content
      </a>
      <header class="top">
        <a class="wordmark" href="#/" aria-label="Triptych, make pictures">
          <Mark />
          Triptych
        </a>
        <nav aria-label="Views">
          <a href="#/" aria-current={view.value === "make" ? "page" : undefined}>
            Make
          </a>
          <a href="#/operate" aria-current={view.value === "operate" ? "page" : undefined}>
            Operate
          </a>
        </nav>
        <div class="tools">
          <button type="button" class="quiet" onClick={() => (keyWanted.value = "")}>
            {key.value ? "Key set" : "Key"}
          </button>
          <ThemeButton />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {view.value === "make" ? <Make /> : <Operate />}
      </main>
      {keyWanted.value !== null && <KeyDialog why={keyWanted.value} />}
    </>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <path d="M3 9h6v18H3z" opacity=".5" />
      <path d="M12 4h8v24h-8z" />
      <path d="M23 9h6v18h-6z" opacity=".5" />
    </svg>
  );
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const SIGN: Record<Theme, string> = {
  system: "M8 2a6 6 0 1 0 0 12zM8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1z",
  light: "M8 4.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM7.3 0h1.4v2.6H7.3zm0 13.4h1.4V16H7.3zM0 7.3h2.6v1.4H0zm13.4 0H16v1.4h-2.6zM2 3l1-1 1.9 1.9-1 1zm9.1 9.1 1-1L14 13l-1 1zM13 2l1 1-1.9 1.9-1-1zM3.9 11.1l1 1L3 14l-1-1z",
  dark: "M6.2 1.2A7 7 0 1 0 14.9 10 6 6 0 0 1 6.2 1.2z",
};

function ThemeButton() {
  const now = theme.value;
  return (
    <button
      type="button"
      class="quiet icon"
      aria-label={`Theme: ${now}. Change to ${NEXT[now]}`}
      title={`Theme: ${now}`}
      onClick={() => (theme.value = NEXT[now])}
    >
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d={SIGN[now]} />
      </svg>
    </button>
  );
}

function KeyDialog({ why }: { why: string }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState(key.value);
  useEffect(() => dialog.current?.showModal(), []);
  const close = () => (keyWanted.value = null);
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onClose={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setKey(text);
        }}
      >
        <h2 id="key-title">API key</h2>
        <p>{why ? `The server says: ${why}.` : "Needed where the server asks for one; not on your own machine."}</p>
        <label>
          Key
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            placeholder="tp_…"
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <p class="small">It stays in this tab, and is forgotten when you close it.</p>
        <div class="row">
          <button type="submit" class="primary">
            Use this key
          </button>
          <button type="button" onClick={close}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
