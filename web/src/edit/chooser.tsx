/** Ways in: a file that is chosen, dropped anywhere on the page, or pasted. */

import { useEffect, useRef, useState } from "preact/hooks";
import { wordsOf } from "../api";
import { problem } from "../make/problem";
import { take } from "./given";

/** Take the first picture among files, and say what is wrong with it otherwise. */
export async function takeFirst(files: Iterable<File>, how: string): Promise<void> {
  const all = [...files];
  const file = all.find((one) => one.type.startsWith("image/")) ?? all[0];
  if (!file) return;
  problem.value = "";
  try {
    await take(file, file.name || how);
  } catch (error) {
    problem.value = wordsOf(error);
  }
}

export function Chooser({ label, quiet }: { label: string; quiet?: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button type="button" class={quiet ? "link" : ""} onClick={() => input.current?.click()}>
        {label}
      </button>
      <input
        ref={input}
        class="unseen"
        type="file"
        accept="image/png,image/jpeg,image/webp"
        tabIndex={-1}
        aria-label={`${label}, as a file`}
        onChange={(event) => {
          void takeFirst(event.currentTarget.files ?? [], "the file");
          event.currentTarget.value = "";
        }}
      />
    </>
  );
}

/** While a file is dragged over the page, a place to drop it; and pictures that are pasted. */
export function Dropping() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const bringsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const on = {
      dragover: (event: DragEvent) => {
        if (!bringsFiles(event)) return;
        event.preventDefault();
        setOver(true);
      },
      dragleave: (event: DragEvent) => event.relatedTarget === null && setOver(false),
      drop: (event: DragEvent) => {
        if (!bringsFiles(event)) return;
        event.preventDefault();
        setOver(false);
        void takeFirst(event.dataTransfer?.files ?? [], "the dropped picture");
      },
    };
    const paste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])].filter((one) => one.type.startsWith("image/"));
      if (!files.length) return;
      event.preventDefault();
      void takeFirst(files, "the pasted picture");
    };
    document.addEventListener("dragover", on.dragover);
    document.addEventListener("dragleave", on.dragleave);
    document.addEventListener("drop", on.drop);
    document.addEventListener("paste", paste);
    return () => {
      document.removeEventListener("dragover", on.dragover);
      document.removeEventListener("dragleave", on.dragleave);
      document.removeEventListener("drop", on.drop);
      document.removeEventListener("paste", paste);
    };
  }, []);
  return over ? (
    <div class="dropping" aria-hidden="true">
      <p>Drop the picture to change it</p>
    </div>
  ) : null;
}
