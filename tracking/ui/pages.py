"""The pages as templates; every value is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

__all__ = ["STYLE", "render"]

_BASE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{% block title %}{% endblock %}</title><link rel="stylesheet" href="/style.css"></head>
<body><main>{% block body %}{% endblock %}</main></body></html>
"""

_INDEX = """{% extends "base" %}{% block title %}Experiments{% endblock %}{% block body %}
<h1>Experiments</h1><p class="quiet">{{ location }}</p>
<form method="get" action="/">
<label>Experiment <select name="experiment"><option value="">all</option>
{% for name in experiments %}
<option{% if name == chosen %} selected{% endif %}>{{ name }}</option>{% endfor %}
</select></label>
<label>Filter <input type="search" name="q" value="{{ query }}" placeholder="name, parameter or tag"></label>
<button>Show</button></form>
{% if not lines %}<p>No runs{% if query %} with “{{ query }}”{% endif %} yet.</p>{% else %}
<div class="scroll" role="region" aria-label="Runs" tabindex="0"><table>
<caption>{{ lines|length }} runs</caption>
<thead><tr>{% for head in heads %}<th scope="col"{% if head.order %} aria-sort="{{ head.order }}"{% endif %}>
<a href="{{ head.link }}">{{ head.title }}</a></th>{% endfor %}</tr></thead>
<tbody>{% for line in lines %}<tr>
<th scope="row" class="depth{{ [line.depth, 4]|min }}"><a href="/runs/{{ line.id }}">{{ line.name }}</a>
{% for badge in line.badges %}<span class="badge">{{ badge }}</span>{% endfor %}</th>
<td>{{ line.experiment }}</td><td class="{{ line.status }}">{{ line.outcome }}</td><td>{{ line.network }}</td>
<td><code>{{ line.digest }}</code></td><td class="number">{{ line.seconds }}</td>
{% for value in line.metrics %}<td class="number">{{ value }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div>{% endif %}{% endblock %}
"""

_RUN = """{% extends "base" %}{% block title %}{{ run.name }}{% endblock %}{% block body %}
<p><a href="/">All runs</a>{% if run.parent %} ·
<a href="/runs/{{ run.parent }}">parent run</a>{% endif %}</p>
<h1>{{ run.name }} {% for badge in badges %}<span class="badge">{{ badge }}</span>{% endfor %}</h1>
<p class="quiet">{{ run.experiment }} · {{ run.outcome }} · {{ run.start.strftime("%Y-%m-%d %H:%M:%S") }} UTC
· {{ seconds }} · <code>{{ run.id }}</code></p>
{% for path in images %}<figure><img src="/runs/{{ run.id }}/files/{{ path|urlencode }}" alt="{{ path }}"
loading="lazy"><figcaption>{{ path }}</figcaption></figure>{% endfor %}
{% for title, values in sections %}<section><h2>{{ title }}</h2>{% if values %}
<div class="scroll" role="region" aria-label="{{ title }}" tabindex="0"><table>
{% for key, value in values %}<tr><th scope="row">{{ key }}</th>
<td>{{ value }}</td></tr>{% endfor %}</table></div>{% else %}<p class="quiet">none</p>{% endif %}</section>
{% endfor %}{% endblock %}
"""

_PROBLEM = """{% extends "base" %}{% block title %}{{ title }}{% endblock %}{% block body %}
<h1>{{ title }}</h1><p>{{ message }}</p><p><a href="/">All runs</a></p>{% endblock %}
"""

STYLE = """:root { color-scheme: light dark; --line: #8885; --quiet: #666; --accent: #0b57d0; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; --accent: #8ab4f8; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { padding: 1rem 1.5rem; }
h1 { font-size: 1.4rem; margin: .2rem 0; } h2 { font-size: 1.1rem; }
a { color: var(--accent); }
.quiet, caption { color: var(--quiet); } caption { text-align: left; }
form { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; align-items: center; }
input, select, button { font: inherit; padding: .2rem .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
tbody tr:hover { background: var(--soft); }
tbody th, tr > th[scope=row] { font-weight: normal; white-space: nowrap; }
td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.badge { border: 1px solid var(--accent); border-radius: 1rem; padding: 0 .5rem; font-size: .8rem; }
.depth1 { padding-left: 2rem; } .depth2 { padding-left: 3.3rem; } .depth3 { padding-left: 4.6rem; }
.depth4 { padding-left: 5.9rem; }
.FAILED { font-weight: bold; }
figure { display: inline-block; margin: 0 1rem 1rem 0; max-width: 100%; }
img { max-width: min(100%, 40rem); height: auto; background: #fff; }
"""

_TEMPLATES = Environment(
    loader=DictLoader({"base": _BASE, "index": _INDEX, "run": _RUN, "problem": _PROBLEM}),
    autoescape=True,
    undefined=StrictUndefined,
)


def render(name: str, **values: Any) -> str:
    """Return the page ``index``, ``run`` or ``problem`` with its values filled in, escaped."""
    return _TEMPLATES.get_template(name).render(**values)
