// The API's reference: Swagger UI on our own OpenAPI document. A file of its own, because the pages allow no script inside them.
"use strict";

const place = document.getElementById("reference");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function follow() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

follow();
dark.addEventListener("change", follow);

SwaggerUIBundle({
  url: place.dataset.schema,
  domNode: place,
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  filter: true,
  // Else it asks another host whether the document is valid.
  validatorUrl: null,
});
