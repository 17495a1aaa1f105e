# Result tables: what the user came for.


rule tables:
    input:
        metrics=[AT.metrics(*cell) for cell in STUDY.cells()],
        pairs=[AT.pair(pair) for pair in STUDY.pairs],
        code=code_files("tables"),
    output:
        figures=report(directory(AT.figures), patterns=["{figure}.svg"], category="Figures"),
        **(AT.table_files() | {"report": report(AT.table_files()["report"], category="Tables")}),
    params:
        tracked=tracked("tables", RAW),
    log:
        AT.log("tables"),
    benchmark:
        AT.benchmark("tables")
    shell:
        "distillery tables > {log} 2>&1"
