/** Why something cannot be shown, in words with the remedy. */

import { keyWanted } from "../api";
import type { Failure } from "../types";
import { sentence } from "../make/why";

interface Props {
  failure: Failure | null;
  missing: boolean;
  what: string;
  again: () => void;
}

export function Said({ failure, missing, what, again }: Props) {
  if (missing) return <p class="warning">This server does not offer {what} yet; a newer one does.</p>;
  if (!failure) return null;
  const keyed = ["admin_key_required", "scope_missing", "key_required", "invalid_api_key"].includes(failure.code ?? "");
  return (
    <div class="problem said" role="alert">
      <p>{sentence(failure.message)}</p>
      {keyed ? (
        <button type="button" onClick={() => (keyWanted.value = failure.message)}>
          Enter a key
        </button>
      ) : (
        <button type="button" onClick={again}>
          Ask again
        </button>
      )}
    </div>
  );
}
