from django.apps import AppConfig


class JetrelayConfig(AppConfig):
    name = "jetrelay"
