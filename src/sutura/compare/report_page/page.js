// Filters the items. Without it the page shows all of them.
(function () {
  "use strict";
  var STEP = 24;
  var form = document.querySelector(".filters");
  if (!form) return;
  var cards = Array.prototype.map.call(document.querySelectorAll(".item"), function (node) {
    return {
      node: node,
      benchmark: node.dataset.benchmark,
      family: node.dataset.family,
      kind: node.dataset.kind,
      right: node.dataset.right.split(" ").filter(Boolean),
      text: node.textContent.toLowerCase(),
    };
  });
  var shown = document.getElementById("shown");
  var more = document.getElementById("more");
  var limit = STEP;

  function value(name) {
    var field = document.getElementById(name);
    return field ? field.value : "";
  }

  function passes(card, wanted) {
    return (!wanted.benchmark || card.benchmark === wanted.benchmark) &&
      (!wanted.family || card.family === wanted.family) &&
      (!wanted.kind || card.kind === wanted.kind) &&
      (!wanted.right || card.right.indexOf(wanted.right) >= 0) &&
      (!wanted.wrong || card.right.indexOf(wanted.wrong) < 0) &&
      wanted.words.every(function (word) { return card.text.indexOf(word) >= 0; });
  }

  function apply() {
    var wanted = { words: value("find").toLowerCase().split(/\s+/).filter(Boolean) };
    ["benchmark", "family", "kind", "right", "wrong"].forEach(function (name) { wanted[name] = value(name); });
    var found = 0;
    cards.forEach(function (card) {
      var fits = passes(card, wanted);
      if (fits) found += 1;
      card.node.hidden = !fits || found > limit;
    });
    shown.textContent = found === 0 ? "No item of the sample fits."
      : "Showing " + Math.min(found, limit) + " of " + found + (found < cards.length ? " that fit, of " + cards.length : "") + ".";
    more.parentNode.hidden = found <= limit;
  }

  function anew() { limit = STEP; apply(); }

  form.hidden = false;
  form.addEventListener("input", anew);
  form.addEventListener("change", anew);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(anew, 0); });
  more.addEventListener("click", function () { limit += STEP; apply(); });
  anew();
})();
