"""URLs of the site."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path

from jetrelay.api import reference
from jetrelay.api.views import NotThere
from jetrelay.dashboard.people.brake import braked, braked_change
from jetrelay.dashboard.people.sign_in import SignIn, Welcome
from jetrelay.dashboard.theme import choose_theme
from jetrelay.health import health
from jetrelay.metrics.views import metrics
from jetrelay.readiness import ready

handler400 = "jetrelay.unanswered.refused"
handler500 = "jetrelay.unanswered.went_wrong"

urlpatterns = [
    # First, because it is asked most.
    path("api/v1/", include("jetrelay.api.urls")),
    path("api/v1", NotThere.as_view()),
    path("", include("jetrelay.dashboard.urls")),
    path("login/", braked(SignIn.as_view()), name="login"),
    path("welcome/<uidb64>/<token>/", Welcome.as_view(), name="welcome"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("theme/", choose_theme, name="theme"),
    path("inbox/", include("jetrelay.inbox.urls")),
    path("health", health, name="health"),
    path("health/ready", ready, name="ready"),
    path("metrics", metrics, name="metrics"),
    path("api/schema", reference.schema, name="api_schema"),
    path("api/docs/", reference.docs, name="api_docs"),
    path("admin/login/", braked(admin.site.login)),
    path("admin/password_change/", braked_change(admin.site.password_change)),
    path("admin/", admin.site.urls),
]
