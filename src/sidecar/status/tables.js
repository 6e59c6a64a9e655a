"use strict";

// Text into the page, always as text: nothing that a client or a config says becomes markup.
function setText(element, text) {
    // What stays as it is must not end a selection or be read out anew.
    if (element.textContent !== text) {
        element.textContent = text;
    }
}

function put(id, text) {
    setText(document.getElementById(id), text);
}

// A table that is filled again and again. columns: {label, text(row), kind?, share?(row)}.
class Table {
    #body;
    #columns;

    constructor(table, columns) {
        this.#columns = columns;
        // Told apart from a layout: on a narrow screen rows are laid out as blocks.
        table.setAttribute("role", "table");
        const head = table.createTHead().insertRow();
        for (const { label, kind } of columns) {
            const cell = head.appendChild(document.createElement("th"));
            cell.scope = "col";
            cell.className = kind ?? "";
            cell.textContent = label;
        }
        this.#body = table.createTBody();
    }

    // rows: any objects; `rowClass` gives the class of one.
    fill(rows, rowClass = () => "") {
        while (this.#body.rows.length > rows.length) {
            this.#body.deleteRow(-1);
        }
        while (this.#body.rows.length < rows.length) {
            this.#addRow();
        }
        for (const [at, row] of rows.entries()) {
            const element = this.#body.rows[at];
            element.className = rowClass(row);
            for (const [place, column] of this.#columns.entries()) {
                const cell = element.cells[place];
                setText(cell.firstChild, column.text(row));
                if (column.share !== undefined) {
                    const part = Math.min(Math.max(column.share(row) ?? 0, 0), 1);
                    cell.lastChild.firstChild.style.width = `${(part * 100).toFixed(1)}%`;
                }
            }
        }
    }

    #addRow() {
        const row = this.#body.insertRow();
        row.setAttribute("role", "row");
        for (const { label, kind, share } of this.#columns) {
            const cell = row.insertCell();
            cell.setAttribute("role", "cell");
            cell.className = kind ?? "";
            cell.dataset.label = label;
            cell.appendChild(document.createElement("span"));
            if (share !== undefined) {
                const bar = cell.appendChild(document.createElement("span"));
                bar.className = "bar";
                bar.appendChild(document.createElement("i"));
            }
        }
    }
}
