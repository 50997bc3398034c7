// Everything that a hub needs in Azure, in one resource group. What each resource is for: docs/deploy.md.
// Tables, queues and containers are those of crm_core/storage/layout.py; tests/unit/test_infra.py compares.

@description('Region of everything.')
param location string = resourceGroup().location

@description('Key of the first administrator, which callers send as X-API-KEY. At least 32 characters.')
@minLength(32)
@secure()
param hubApiKey string

@description('More settings of the hub by name, as in the table of README.md; a secret as a Key Vault reference. They do not replace what this file sets.')
param settings { *: string } = {}

@description('Version of Python that the app runs on.')
@allowed(['3.11', '3.12', '3.13'])
param pythonVersion string = '3.13'

@description('Memory of an instance; 2048 has one core, 512 a quarter, 4096 two.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('How many instances there are at most. All Flex Consumption apps of a subscription in a region share 250 cores.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Where the storage account keeps copies of its data: LRS in one data centre, ZRS in three zones, GRS and GZRS also in a second region.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param storageSku string = 'Standard_LRS'

@description('For how many days logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('How many GB of logs are taken in a day; what comes after them is lost. -1: no limit.')
@minValue(-1)
param logDailyCapGB int = 1

var tables = ['records', 'keys', 'config', 'state', 'runs', 'events', 'deadletters', 'journal', 'stats', 'secrets']
var queues = ['fresh', 'bulk', 'fresh-poison', 'bulk-poison']
var hubContainer = 'crmhub'
var packageContainer = 'app-package'

// Worker threads of an instance, and how many HTTP requests it gets at a time: Python's own number would be one.
var threads = 16

var suffix = uniqueString(resourceGroup().id)

// Built-in roles. Blob Data Owner and Table Data Contributor are what the Functions host itself asks for.
var storageRoles = {
  'Storage Blob Data Owner': 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
  'Storage Queue Data Contributor': '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
  'Storage Table Data Contributor': '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
}
var keyVaultSecretsOfficer = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'crmhub-${suffix}'
  location: location
}

// --- state ---------------------------------------------------------------------------------------------------------

resource storage 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: 'crmhub${suffix}'
  location: location
  kind: 'StorageV2'
  sku: { name: storageSku }
  properties: {
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }

  resource tableService 'tableServices' = {
    name: 'default'

    resource table 'tables' = [
      for name in tables: {
        name: name
      }
    ]
  }

  resource queueService 'queueServices' = {
    name: 'default'

    resource queue 'queues' = [
      for name in queues: {
        name: name
      }
    ]
  }

  resource blobService 'blobServices' = {
    name: 'default'

    resource container 'containers' = [
      for name in [hubContainer, packageContainer]: {
        name: name
        properties: { publicAccess: 'None' }
      }
    ]
  }
}

resource storageRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in items(storageRoles): {
    name: guid(storage.id, identity.id, role.value)
    scope: storage
    properties: {
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
      principalId: identity.properties.principalId
      principalType: 'ServicePrincipal'
    }
  }
]

// --- secrets -------------------------------------------------------------------------------------------------------

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = {
  name: 'crmhub-${suffix}'
  location: location
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
  }

  resource apiKey 'secrets' = {
    name: 'hub-api-key'
    properties: { value: hubApiKey }
  }
}

resource vaultRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identity.id, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

// --- logs ----------------------------------------------------------------------------------------------------------

resource logs 'Microsoft.OperationalInsights/workspaces@2025-02-01' = {
  name: 'crmhub-${suffix}'
  location: location
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: logRetentionDays
    workspaceCapping: { dailyQuotaGb: logDailyCapGB }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'crmhub-${suffix}'
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
    DisableLocalAuth: true
  }
}

resource insightsRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, identity.id, monitoringMetricsPublisher)
  scope: insights
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

// --- the app -------------------------------------------------------------------------------------------------------

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: 'crmhub-${suffix}'
  location: location
  kind: 'functionapp'
  sku: { tier: 'FlexConsumption', name: 'FC1' }
  properties: { reserved: true }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: 'crmhub-${suffix}'
  location: location
  kind: 'functionapp,linux'
  // By this tag azd finds where to deploy the service of azure.yaml.
  tags: { 'azd-service-name': 'hub' }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identity.id}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identity.id
    siteConfig: { minTlsVersion: '1.2' }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identity.id
          }
        }
      }
      runtime: { name: 'python', version: pythonVersion }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        triggers: { http: { perInstanceConcurrency: threads } }
      }
    }
  }
  // The app finds all that it starts with.
  dependsOn: [storage::blobService::container, storageRole, vaultRole, insightsRole]

  // Deployments sign in by Entra only.
  resource deploymentByPassword 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }

  // FUNCTIONS_WORKER_RUNTIME and its kin are not for this plan: functionAppConfig has the runtime.
  resource appSettings 'config' = {
    name: 'appsettings'
    // A deployment replaces all of them; of two alike the last one counts.
    properties: union(settings, {
      AzureWebJobsStorage__accountName: storage.name
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identity.properties.clientId
      KEY_VAULT_URL: vault.properties.vaultUri
      // With its version, so that a new key is a changed setting, which the platform reads at once.
      HUB_API_KEY: '@Microsoft.KeyVault(SecretUri=${vault::apiKey.properties.secretUriWithVersion})'
      PYTHON_THREADPOOL_THREAD_COUNT: string(threads)
      APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identity.properties.clientId};Authorization=AAD'
    })
  }
}

@description('Address of the hub.')
output HUB_URL string = 'https://${app.properties.defaultHostName}'

@description('Name of the function app.')
output APP_NAME string = app.name

@description('Name of the vault.')
output VAULT_NAME string = vault.name

@description('Client id of the hub\'s identity, for connections that sign in by managed identity.')
output IDENTITY_CLIENT_ID string = identity.properties.clientId
