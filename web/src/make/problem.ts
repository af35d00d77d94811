/** What went wrong with what was just asked for, in words. */

import { signal } from "@preact/signals";

export const problem = signal("");
