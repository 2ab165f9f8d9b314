"""axe-core in a page: what keeps people from using it who do not see, hear or point as others do."""

from __future__ import annotations

from typing import Any, Final

from playwright.sync_api import Page

from tools.axe import SCRIPT

# Besides what axe does by itself (WCAG 2.0 and 2.1, A and AA, and its own advice): the rules new in WCAG 2.2.
_RUN: Final = """
async () => {
  const rules = Object.fromEntries(axe.getRules(["wcag22aa"]).map(({ ruleId }) => [ruleId, { enabled: true }]));
  const { violations, passes } = await axe.run(document, { rules });
  if (!violations.length && !passes.length) throw new Error("axe has looked at nothing");
  return violations;
}
"""


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it is shown now: one text for each element, [] when all is well."""
    assert SCRIPT.exists(), "axe-core is not there: run `make dev`"
    if not page.evaluate("'axe' in window"):
        page.evaluate(SCRIPT.read_text(encoding="utf-8"))
    return [_line(rule, node) for rule in page.evaluate(_RUN) for node in rule["nodes"]]


def _line(rule: dict[str, Any], node: dict[str, Any]) -> str:
    advice = " ".join(node["failureSummary"].split())
    return f"{rule['id']} ({node['impact']}): {node['html']}\n  at {node['target']}\n  {advice}"
