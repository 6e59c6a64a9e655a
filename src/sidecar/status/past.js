"use strict";

// What was wrong and is over. A finding that comes back soon was not over.
class Past {
    static KEPT = 10;
    static SOON_MS = 30_000;

    #at = 0;
    #now = new Map();
    #over = [];

    // Takes notice of what is found now; says nothing of what is not.
    see(at, problems) {
        this.#at = at;
        for (const { key, level, size, text } of problems) {
            const anew = { key, first: at, size: -1 };
            const found = this.#now.get(key) ?? this.#again(key, at) ?? anew;
            this.#now.set(key, found);
            found.last = at;
            // Told as it was at its worst: in the end less and less of it is left.
            if (size >= found.size) {
                Object.assign(found, { level, size, text: text.replace(" just now", "") });
            }
        }
    }

    // Takes all that is found now: what is not among it is over.
    take(at, problems) {
        this.see(at, problems);
        for (const [key, found] of this.#now) {
            if (found.last < at) {
                this.#now.delete(key);
                this.#over.push(found);
            }
        }
        this.#over.sort((a, b) => b.last - a.last);
        this.#over.splice(Past.KEPT);
    }

    #again(key, at) {
        const index = this.#over.findIndex((old) => {
            return old.key === key && at - old.last <= Past.SOON_MS;
        });
        return index < 0 ? undefined : this.#over.splice(index, 1)[0];
    }

    // What was not found any more when last looked, the latest first: {first, last, level, text}.
    get over() {
        const gone = [...this.#now.values()].filter(({ last }) => last < this.#at);
        return [...gone, ...this.#over].slice(0, Past.KEPT);
    }
}
