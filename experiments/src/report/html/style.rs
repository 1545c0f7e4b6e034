//! How the page looks: one column that fits a phone, light or dark as the reader's system is.

/// The style sheet. Colours are those of Okabe and Ito, which people who see few colours tell apart.
pub(super) const STYLE: &str = r#"
:root { color-scheme: light dark;
  --paper: #fcfcfb; --card: #ffffff; --ink: #1c2126; --soft: #5d6872; --line: #dde2e6; --grid: #e9edf0;
  --good: #00805f; --good-soft: #d8efe7; --bad: #b8460a; --calm: #2a6ea8;
  --tie: #a8b1b9; --late: #d9a406; --band: #2a6ea833; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14181b; --card: #1c2226; --ink: #e6eaed; --soft: #9aa6b0; --line: #333c43; --grid: #2a3238;
  --good: #3ec49b; --good-soft: #163a30; --bad: #f08a4b; --calm: #6db3ea;
  --tie: #66727c; --late: #e3b93c; --band: #6db3ea3d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.2rem 1rem 4rem; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 0 0 .8rem; color: var(--soft); overflow-wrap: anywhere; }
h1 b { color: var(--ink); }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .5rem; }
p { margin: .3rem 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.1rem;
  margin: 0 0 1rem; }
.verdict { border-left: .4rem solid var(--calm); }
.verdict.good { border-left-color: var(--good); } .verdict.bad { border-left-color: var(--bad); }
.verdict .word { font-size: 1.9rem; line-height: 1.2; font-weight: 700; color: var(--calm); }
.verdict.good .word { color: var(--good); } .verdict.bad .word { color: var(--bad); }
.verdict .word::first-letter, .verdict p::first-letter { text-transform: uppercase; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin-top: .9rem; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.soft, .tile span, figcaption { color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--grid); white-space: nowrap;
  vertical-align: middle; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
td.chart, th.chart { text-align: center; } td:first-child { white-space: normal; min-width: 7rem; }
tr:last-child td { border-bottom: 0; }
.good-text { color: var(--good); font-weight: 600; } .bad-text { color: var(--bad); font-weight: 600; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
.forest { width: 11rem; height: 1.4rem; display: inline-block; }
.grid { stroke: var(--grid); stroke-width: 1; } .zero { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.always { stroke-width: 1.5; } .once { stroke-width: 6; }
.s-good { stroke: var(--good); } .s-bad { stroke: var(--bad); } .s-calm { stroke: var(--calm); }
.f-good { fill: var(--good); } .f-bad { fill: var(--bad); } .f-calm { fill: var(--calm); }
.band { fill: var(--band); } .mean { fill: none; stroke: var(--calm); stroke-width: 2; stroke-linejoin: round; }
.bar { display: flex; height: 1.5rem; border-radius: .35rem; overflow: hidden; margin: .35rem 0; background: var(--grid); }
.bar i { display: block; min-width: 2px; } .bar .win { background: var(--good); } .bar .loss { background: var(--bad); }
.bar .even { background: var(--tie); } .bar .late { background: var(--late); } .bar .info { background: var(--calm); }
.bar.small { height: .8rem; min-width: 7rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .875rem; color: var(--soft); }
.legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: .2rem; margin-right: .35rem;
  vertical-align: -1px; }
.legend .win { background: var(--good); } .legend .loss { background: var(--bad); } .legend .even { background: var(--tie); }
.legend .late { background: var(--late); }
.legend .info { background: var(--calm); }
.example { border-top: 1px solid var(--line); padding: .8rem 0; }
.query { font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; }
.arms { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; margin-top: .5rem; }
@media (max-width: 42rem) { .arms { grid-template-columns: 1fr; } main { padding: .8rem .6rem 3rem; }
  section { padding: .8rem .8rem; } svg.track text { font-size: 19px; } .forest { width: 7.5rem; height: 1rem; } .verdict .word { font-size: 1.5rem; } }
.arm { border: 1px solid var(--line); border-radius: .5rem; padding: .55rem .75rem; min-width: 0; }
.arm.better { border-color: var(--good); background: color-mix(in srgb, var(--good-soft) 45%, transparent); }
.arm header { display: flex; justify-content: space-between; gap: .6rem; font-size: .875rem; color: var(--soft); }
.arm header b { font-variant-numeric: tabular-nums; color: var(--ink); }
.rewrite { margin: .2rem 0 .4rem; font-weight: 500; overflow-wrap: anywhere; }
.arm ol { margin: 0; padding-left: 1.3rem; font-size: .875rem; } .arm li { margin: .15rem 0; overflow-wrap: anywhere; }
.arm code, .soft code { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; }
ul.notes { margin: 0; padding-left: 1.2rem; }
"#;
